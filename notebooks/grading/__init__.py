"""`r1lab grade`: points for notebooks that learners hand in.

What is graded is a function and the statements that it needs, found in the notebook's text; the rest of the
notebook, its training and its pictures, is not run. Each function runs in a locked process of its own (see
`r1lab.sandbox`), which is given questions and no answers. What comes back is plain data, judged here by the
lesson's own check, with more questions that no learner has seen.
"""

import hashlib
import json
import secrets
from collections import defaultdict
from contextlib import closing
from functools import partial
from pathlib import Path

from grading.copies import name_twins
from grading.lessons import exercises, lessons
from grading.marking import Room, mark
from grading.pages import file_name, points, write_pages, write_table
from grading.submissions import Submission, clean, find, general_remarks, lesson_of, read

from r1lab.errors import InputError, require_known
from r1lab.files import NOTEBOOKS, write_text
from r1lab.lab import check
from r1lab.machine import cores

EMPTY = "nothing is written yet"  # so the check begins where there was no try


def grade(folder: Path, out: Path, lesson: str = "", seconds: float = 10.0, seed: str = ""):
    """Grade all submissions in a folder; see `r1lab grade --help`."""
    if lesson:
        require_known(lesson, lessons(), "lesson")
    if seconds <= 0:
        raise InputError(f"{seconds:g} seconds for a function are too few; give 1 or more.")
    listed = find(folder, out)
    for place in ("results", "students"):
        (out / place).mkdir(parents=True, exist_ok=True)
    desk = Desk(out, lesson, seconds, seed or _secret_seed(out / "seed.txt"))
    with closing(desk):
        for submission in listed:
            desk.take(submission)
        desk.finish()
    name_twins(desk.graded)
    sums = write_table(out, desk.graded, desk.faults)
    write_pages(out, desk.graded, desk.faults, sums)
    print(f"Grades: {out / 'grades.csv'}\nPages: {out / 'students'}")


def _secret_seed(path):
    if not path.is_file():
        write_text(path, secrets.token_hex(16))
    return path.read_text("utf-8").strip()


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


class Desk:
    """Takes submissions one by one, and collects what was graded and what could not be."""

    def __init__(self, out: Path, lesson: str, seconds: float, seed: str):
        self.out, self.lesson, self.seconds, self.seed = out, lesson, seconds, seed
        self.graded, self.faults = defaultdict(dict), defaultdict(list)
        self.waiting, self.room = [], None
        folders = (Path(__file__).parent, Path(check.__file__).parent)
        files = sorted(path for folder in folders for path in folder.iterdir() if path.is_file())
        self.rules = _digest(seed.encode(), str(seconds).encode(), *(path.read_bytes() for path in files))

    def take(self, submission: Submission):
        """Read a submission and begin to grade it, unless it was graded already."""
        name = clean(Path(submission.path.name))
        try:
            if submission.fault:
                raise InputError(submission.fault)
            content, listed = read(submission.path)
            lesson = self._lesson(submission, listed)
        except InputError as error:
            self._fail(submission.student, f"{name} {error}.")
            return
        digest = _digest(content, self.rules.encode(), (NOTEBOOKS / f"{lesson}.ipynb").read_bytes())
        store = self.out / "results" / f"{file_name(submission.student)} {lesson}.json"
        before = _stored(store)
        result = self.graded[submission.student][lesson] = {"digest": digest, "file": name}
        if before.get("digest") == digest:
            result.update(before)
            return
        result["notes"] = list(general_remarks(lesson, submission.path, listed))
        self.room = self.room or open_room()
        begin = partial(self.room.threads.submit, mark, self.room)
        work = [begin(one, listed, self.seed, self.seconds) for one in exercises(lesson)]
        self.waiting.append((submission.student, lesson, store, before.get("exercises", {}), result, work))

    def _lesson(self, submission, listed):
        lesson = lesson_of(submission.path, listed)
        if not lesson:
            raise InputError("holds no graded cell of any lesson")
        if self.lesson not in ("", lesson):
            raise InputError(f"is of lesson {lesson}, and {self.lesson} is graded")
        if taken := self.graded[submission.student].get(lesson):
            raise InputError(f"is a second notebook of {lesson}, of which {taken['file']} is graded")
        return lesson

    def _fail(self, student, sentence):
        print(f"{student}: {sentence}" if student else sentence)
        if student:
            self.faults[student].append(sentence)

    def finish(self):
        """Wait for what is being graded, and store each result as soon as it is there."""
        for student, lesson, store, before, result, work in self.waiting:
            marks = {}
            for exercise, future in zip(exercises(lesson), work, strict=True):
                marks[exercise.title] = one = future.result()
                earlier = before.get(exercise.title, {"tries": 0, "version": ""})
                is_new = one["version"] != earlier["version"] and not one["check"].startswith(EMPTY)
                one["tries"] = earlier["tries"] + is_new
            result["exercises"] = marks
            write_text(store, json.dumps(result, indent=1) + "\n")
            total = points(sum(one["points"] for one in marks.values()))
            print(f"{student}: {lesson}: {total} of {len(marks)} points")

    def close(self):
        """End the locked processes."""
        if self.room:
            self.room.close()


def open_room() -> Room:
    """Where functions are locked in. Raises InputError where they cannot be."""
    try:
        return Room(cores())
    except InputError as error:
        why = str(error).partition(": ")[2].partition("; ")[0]
        what = "functions of learners run only where the kernel locks them in"
        raise InputError(f"no notebook was graded: {what} ({why}); use Linux, or a container.") from error


def _stored(path):
    """An earlier result; nothing where there is none that can be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
