"""Find what learners handed in, and read it, whatever it is."""

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from grading.lessons import Exercise, code_cells, exercises, lessons, shipped

from r1lab.errors import InputError

MAX_BYTES = 20 * 2**20  # of a notebook; a lesson with all its outputs has one
OVERWRITES = re.compile(
    r"^[ \t]*(?:check\b[\w.]*[ \t]*=(?!=)|(?:def|class) check\b|setattr\(check\b)", re.MULTILINE
)


@dataclass(frozen=True)
class Submission:
    """A file, or what there is in its place.

    Attributes:
        student: "" for a file beside the students' folders.
        fault: why it cannot be read, if that is known already.
    """

    student: str
    path: Path
    fault: str = ""


def clean(text: object) -> str:
    """Text of others as one line that can be written in UTF-8."""
    line = os.fsencode(str(text)).decode("utf-8", "backslashreplace") if isinstance(text, Path) else str(text)
    line = line.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else " " for letter in line)


def find(folder: Path, out: Path) -> list[Submission]:
    """All submissions in a folder with a folder for each student, or with notebooks STUDENT_LESSON.ipynb."""
    if not folder.is_dir():
        what = "give the one with the submissions, in which each student has a folder"
        raise InputError(f"{clean(folder)} is no folder; {what}.")
    listed = []
    for path in sorted(folder.iterdir(), key=lambda path: path.stem):
        if path.name.startswith((".", "__")) or (path.exists() and out.exists() and path.samefile(out)):
            continue
        if path.is_dir() and not path.is_symlink():
            listed += _of_student(clean(Path(path.name)), path)
        elif path.suffix == ".ipynb":
            listed.append(Submission(_student(path, folder), path))
        else:
            fault = "is no notebook and no student's folder, so it is left out"
            listed.append(Submission("", path, fault))
    if not listed:
        raise InputError(f"{clean(folder)} is empty; put each student's folder with notebooks in it.")
    return listed


def _student(path, folder):
    """Of a file beside others, what is left of its name without the lesson's."""
    name = path.stem
    for lesson in lessons():
        name = name.replace(lesson, "")
    return clean(Path(name.strip(" _-") or folder.resolve().name))


def _of_student(student, folder):
    notebooks, others = [], []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        paths = sorted((Path(place, name) for name in files), key=lambda path: path.stem)
        notebooks += [path for path in paths if path.suffix == ".ipynb"]
        others += [path for path in paths if path.suffix != ".ipynb"]
        others += [Path(place, name) for name in folders if Path(place, name).is_symlink()]
    if not notebooks:
        fault = "is no notebook: hand in the .ipynb file" if others else "is empty: nothing was handed in"
        return [Submission(student, others[0] if others else folder, fault)]
    return [Submission(student, path) for path in notebooks]


def read(path: Path) -> tuple[bytes, list[dict]]:
    """A notebook's bytes and code cells. Raises InputError, in words that follow the file's name."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise InputError("is a link, which is not followed: hand in the file itself") from error
        raise InputError(f"cannot be read ({error.strerror}): hand it in again") from error
    with open(file, "rb") as opened:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise InputError("is no ordinary file: hand in the .ipynb file")
        if about.st_size > MAX_BYTES:
            size = f"has {about.st_size / 2**20:.0f} MB, and at most {MAX_BYTES // 2**20} are read"
            raise InputError(f"{size}: clear its outputs and hand it in again")
        content = opened.read()
    try:
        return content, code_cells(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = f"is no notebook that can be read ({type(error).__name__})"
        raise InputError(f"{what}: save it in Jupyter again") from error


def lesson_of(path: Path, listed: Sequence[dict]) -> str:
    """Of which lesson most graded cells are in a notebook; where it has none, by its name; or ""."""
    names = {cell["id"] for cell in listed}
    hits = {lesson: len(names & _ids(lesson)) for lesson in lessons()}
    best = max(hits, key=hits.__getitem__)
    if hits[best]:
        return best
    return next((lesson for lesson in lessons() if lesson in path.stem), "")


def _ids(lesson):
    return {name for one in exercises(lesson) for name in (one.solution, one.test)}


def remarks(exercise: Exercise, listed: Sequence[dict]) -> Iterator[str]:
    """What happened to the two cells of an exercise."""
    sources = {exercise.solution: [], exercise.test: []}
    for cell in listed:
        sources.get(cell["id"], []).append(cell["source"])
    for name, what in ((exercise.solution, "the solution's"), (exercise.test, "the check's")):
        count = len(sources[name])
        if count == 0:
            yield f"{what} cell {name} was deleted or renamed"
        if count > 1:
            yield f"{what} cell {name} is there {count} times"
    given = exercise.tested
    if any(_words(source) not in (_words(given), _words(f"assert {given}")) for source in sources[exercise.test]):
        what = "which changes nothing: the lesson's own check was asked"
        yield f"the check's cell {exercise.test} was edited, {what}"


def _words(source):
    return "".join(source.split())


def general_remarks(lesson: str, path: Path, listed: Sequence[dict]) -> Iterator[str]:
    """What was noticed in a notebook outside of its graded cells."""
    sources = {cell["source"] for cell in shipped(lesson)}
    for cell in listed:
        if OVERWRITES.search(cell["source"]) and cell["source"] not in sources:
            what = "which changes nothing: the lesson's own was asked"
            yield f"check is overwritten in cell {cell['number']}, {what}"
    if lesson not in path.name and any(other in path.name for other in lessons()):
        yield f"the file is named {clean(Path(path.name))}, and holds this lesson"
    if not str(path).isascii() and "\\x" in clean(path):
        yield "the name of the folder or file is not UTF-8; its odd bytes are written here as \\x.."
