"""`r1lab grade`: right is paid, cheats are not, and nothing that is handed in stops the rest."""

import csv
import gc
import html
import json
import os
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grading
import nbformat
import pytest
from grading import cells, copies, grade, marking, questions, submissions
from grading.lessons import code_cells, exercises, lessons

from r1lab.errors import InputError
from r1lab.files import NOTEBOOKS
from r1lab.lab.check import engine
from tests import made_up_submissions as made_up

open_room = grading.open_room
SECONDS = 2.0
FEW = ["02_reward_design", "08_distillation", "01_grpo_math", "01b_variants_and_kl", "14_capstone"]


def table(out):
    with open(out / "grades.csv", encoding="utf-8", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module", autouse=True)
def room():
    """One room for all tests: what it does once takes seconds."""
    with closing(grading.open_room()) as room, pytest.MonkeyPatch.context() as patch:
        close, room.close = room.close, lambda: None
        patch.setattr(grading, "open_room", lambda: room)
        yield
        room.close = close


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Every kind of submission once, over a few lessons: what each must earn, and the table."""
    folder, out = tmp_path_factory.mktemp("submitted"), tmp_path_factory.mktemp("graded")
    kinds, expected = [*made_up.RIGHT, *made_up.NOTHING], {}
    for place, lesson in enumerate(FEW):
        count = len(exercises(lesson))
        mine = kinds[place :: len(FEW)]
        for start in range(0, len(mine), count):
            chosen = (mine[start : start + count] + ["as in the lesson"] * count)[:count]
            student = f"{lesson} {start}"
            made_up.hand_in(folder, student, lesson, chosen)
            expected[student] = lesson, chosen
    grade(folder, out, seconds=SECONDS, seed="a test's")
    return out, expected, table(out)


def test_each_kind_of_submission_earns_its_points(graded):
    out, expected, rows = graded
    for student, (lesson, kinds) in expected.items():
        earned = made_up.earned(kinds)
        for exercise, kind, earns in zip(exercises(lesson), kinds, earned, strict=True):
            row, title = rows[student], exercise.title
            assert row[title] == str(int(earns)), (kind, title, row[f"{title} check"])
            assert (row[f"{title} check"] == "right") is earns, kind
            if kind in made_up.RIGHT:
                assert made_up.RIGHT[kind][1] in row["notes"], (kind, row["notes"])
        assert rows[student]["points"] == str(sum(made_up.earned(kinds)))


def test_sentences_say_what_happened(graded):
    out, expected, rows = graded
    said = {
        kind: rows[student][f"{exercise.title} check"]
        for student, (lesson, kinds) in expected.items()
        for exercise, kind in zip(exercises(lesson), kinds, strict=True)
    }
    for kind, words in {
        "nothing": "nothing is written yet", "loops": "a loop in it does not end",
        "reads a file": "there are no files, no network", "crashes Python": "crashes Python",
        "ends the program": "ends the program", "fills the memory": "MemoryError",
        "deleted": "there is no function", "unreadable": "cannot be read (SyntaxError",
        "is the package's": "is not at hand while you are graded",
    }.items():  # fmt: skip
        assert words in said[kind], (kind, said[kind])
    assert all("\n" not in one and "Traceback" not in one and len(one) <= 400 for one in said.values())


def test_pages_show_one_student_alone(graded):
    out, expected, rows = graded
    for student, (lesson, kinds) in expected.items():
        page = html.unescape((out / "students" / f"{student}.html").read_text("utf-8"))
        assert f"{rows[student]['points']} of" in page
        assert not [other for other in expected if other != student and other in page]
        for exercise in exercises(lesson):
            assert rows[student][f"{exercise.title} check"] in page


@pytest.mark.parametrize("lesson", ["13_a_real_model", "14_capstone"])
def test_a_function_with_another_name_is_found_where_the_lesson_only_asserts(lesson, tmp_path):
    asked = exercises(lesson)
    (tmp_path / "in/ann").mkdir(parents=True)
    notebook = made_up.submission(lesson, ["renamed"] * len(asked))
    nbformat.write(notebook, tmp_path / f"in/ann/{lesson}.ipynb")
    grade(tmp_path / "in", tmp_path / "out", seed="a test's")
    row = table(tmp_path / "out")["ann"]
    assert row["points"] == row["of"] == str(len(asked)), row


def test_answers_learned_by_heart_earn_nothing(tmp_path):
    """Every question that the lesson's own check asks, and nothing else, is answered right."""
    lesson, check = "02_reward_design", "safe_accuracy"
    known = {repr(args): right for _, args, right in engine.EXAMPLES[check]}
    source = f"KNOWN = {known!r}\n\n\ndef my_accuracy(*args):\n    return KNOWN.get(repr(list(args)), False)"
    notebook = made_up.submission(lesson, ["as in the lesson"] * 4)
    made_up.put(notebook, exercises(lesson)[2], source)
    (tmp_path / "in/eve").mkdir(parents=True)
    nbformat.write(notebook, tmp_path / f"in/eve/{lesson}.ipynb")
    grade(tmp_path / "in", tmp_path / "out", seed="a test's")
    row = table(tmp_path / "out")["eve"]
    assert (row["points"], row["02.3 my_accuracy"]) == ("3", "0")
    assert "drawn at random" in row["02.3 my_accuracy check"]


@pytest.mark.parametrize("check", [name for name, row in engine.EXERCISES.items() if "words" not in row])
def test_who_knows_the_shown_questions_by_heart_cannot_guess_the_others(check):
    known = {repr(args): right for _, args, right, *_ in engine.EXAMPLES[check]}
    for guess in [None, *known.values()]:

        def reply(text, slopes, guess=guess):
            return json.dumps({"kind": "", "values": [known.get(repr(json.loads(text)), guess)]})

        assert engine.judge(engine.EXERCISES[check], reply, marking.asked(check, "a test's")) != "right"


OWN = """def my_{name}({text}):
    # {name}
    numbers = []
    for {letter} in {text}:
        if {letter}.isdigit():
            numbers.append(int({letter}))
    return sum(numbers) > len(numbers) + 1"""


def test_copies_are_named_and_cost_nothing(tmp_path):
    """Of the shipped solution and of one another, whatever layout, comments and variables are."""
    lesson, titles = "02_reward_design", [one.title for one in exercises("02_reward_design")]
    renamed = {"tag": "pattern", "completion": "text", "between": "middle"}
    for student, variables in {"ana": ("text", "letter"), "ben": ("s", "c"), "eve": ("s", "s")}.items():
        notebook = made_up.submission(lesson, ["nothing", "nothing", "nothing", "as in the lesson"])
        if student == "ana":
            source = made_up.solution(nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", 4), exercises(lesson)[0])
            for old, new in renamed.items():
                source = re.sub(rf"\b{old}\b", new, source)
            made_up.put(notebook, exercises(lesson)[0], f'{source.replace(":", ":  # mine", 1)}')
        source = OWN.format(name="accuracy", text=variables[0], letter=variables[1])
        made_up.put(notebook, exercises(lesson)[2], source)
        (tmp_path / "in" / student).mkdir(parents=True)
        nbformat.write(notebook, tmp_path / f"in/{student}/{lesson}.ipynb")
    for _ in range(2):  # the second time from what is stored
        grade(tmp_path / "in", tmp_path / "out", seed="a test's")
        rows = table(tmp_path / "out")
        assert [rows[name]["points"] for name in ("ana", "ben", "eve")] == ["2", "1", "1"]
        assert f"{titles[0]}: {copies.SHIPPED}" in rows["ana"]["notes"] and titles[0] not in rows["ben"]["notes"]
        assert all(f"{titles[3]}: {copies.SHIPPED}" in row["notes"] for row in rows.values())
        assert f"{titles[2]}: word for word as in ben" in rows["ana"]["notes"]
        assert f"{titles[2]}: word for word as in ana" in rows["ben"]["notes"]
        assert titles[2] not in rows["eve"]["notes"], "one variable in place of two"
        page = (tmp_path / "out/students/ana.html").read_text("utf-8")
        assert page.count("the shipped solution, word for word") == 2 and "as in another submission" in page


def test_an_earlier_exercise_costs_its_own_point_alone(tmp_path):
    """The whole loss calls the learner's KL, and is right with a right one."""
    lesson, (first, second, _) = "01b_variants_and_kl", exercises("01b_variants_and_kl")
    assert "my_kl" in second.earlier and not first.earlier
    for student, sources in {"ana": ("a bit off", "as in the lesson"), "ben": ("a bit off", "a bit off")}.items():
        made_up.hand_in(tmp_path / "in", student, lesson, [*sources, "nothing"])
    made_up.hand_in(tmp_path / "in", "eve", lesson, ["nothing", "the check's cell deleted", "nothing"])
    grade(tmp_path / "in", tmp_path / "out", seed="a test's")
    rows = table(tmp_path / "out")
    for student, earned in {"ana": ("0", "1"), "ben": ("0", "0"), "eve": ("0", "1")}.items():
        assert tuple(rows[student][one.title] for one in (first, second)) == earned, student
    assert "right with the lesson's own functions of earlier exercises" in rows["ana"]["notes"]
    assert "lesson's own functions" not in rows["ben"]["notes"]


@pytest.mark.parametrize("lesson", lessons())
def test_an_untouched_copy_is_no_copy(lesson):
    untouched = code_cells(json.loads(json.dumps(made_up.submission(lesson, ["nothing"] * len(exercises(lesson))))))
    assert not [one.title for one in exercises(lesson) if copies.is_shipped(one, untouched)]


def test_what_is_unchanged_is_not_graded_again(tmp_path, capsys):
    folder, out, lesson = tmp_path / "in", tmp_path / "out", "00_start_here"
    made_up.hand_in(folder, "ana", lesson, ["nothing"])
    made_up.hand_in(folder, "ben", lesson, ["as in the lesson"])
    grade(folder, out)
    assert "ana: 00_start_here: 0 of 1 points" in capsys.readouterr().out
    before = table(out)
    grade(folder, out)
    assert "of 1 points" not in capsys.readouterr().out and table(out) == before
    made_up.hand_in(folder, "ana", lesson, ["a bit off"])
    grade(folder, out)
    made_up.hand_in(folder, "ana", lesson, ["as in the lesson"])
    grade(folder, out)
    printed = capsys.readouterr().out
    assert "ben" not in printed and "ana: 00_start_here: 1 of 1 points" in printed
    tries = "00.1 my_pass_at_1 tries"
    assert before["ana"][tries] == "0", "an empty function is no try"
    assert (table(out)["ana"][tries], table(out)["ben"][tries]) == ("2", "1")
    assert len((out / "seed.txt").read_text()) == 32


def test_bad_submissions_get_a_sentence_and_the_rest_goes_on(tmp_path, capsys):
    folder, out, lesson = tmp_path / "in", tmp_path / "out", "00_start_here"
    made_up.hand_in(folder, "zoe", lesson, ["as in the lesson"])
    right = folder / "zoe" / f"{lesson}.ipynb"
    odd = os.fsencode(folder) + b"/jos\xe9"
    for name in ("essay", "huge", "link", "empty", "other", "twice", "folder", "=1+1", "text"):
        (folder / name).mkdir()
    os.mkdir(odd)
    shutil.copy(right, os.fsdecode(odd))
    shutil.copy(right, folder / f"flat_{lesson}.ipynb")
    shutil.copy(right, folder / "twice")
    shutil.copy(right, folder / "twice" / f"{lesson} (1).ipynb")
    shutil.copy(right, folder / "=1+1" / "02_reward_design.ipynb")
    (folder / "essay/essay.docx").write_text("an essay")
    (folder / "text/text.ipynb").write_text("[" * 99_999)
    with open(folder / "huge/00_start_here.ipynb", "wb") as file:
        file.truncate(50 * 2**20)
    (folder / "link/00_start_here.ipynb").symlink_to("/etc/passwd")
    (folder / "away").symlink_to("/etc")
    nbformat.write(nbformat.v4.new_notebook(), folder / "other/my.ipynb")
    os.mkfifo(folder / "folder/00_start_here.ipynb")
    (folder / "roster.csv").write_text("names")
    grade(folder, out, lesson=lesson)
    rows, printed = table(out), capsys.readouterr().out
    for student, words in {
        "essay": "essay.docx is no notebook", "huge": "has 50 MB", "link": "is a link", "empty": "is empty",
        "other": "no graded cell of any lesson", "twice": "is a second notebook of 00_start_here",
        "folder": "is no ordinary file", "'=1+1": "holds this lesson", "text": "is no notebook that can be read",
        "jos\\xe9": "not UTF-8",
    }.items():  # fmt: skip
        assert words in rows[student]["notes"], (student, rows[student]["notes"])
    assert [name for name, row in rows.items() if row["points"] == "1"] == ["'=1+1", "flat", "jos\\xe9", "twice", "zoe"]
    assert "roster.csv is no notebook and no student's folder" in printed and "away is no notebook" in printed
    assert "root:" not in "".join(path.read_text() for path in out.rglob("*.*"))


@pytest.mark.parametrize(("make", "words"), [
    (lambda path: None, "is no folder"), (lambda path: path.mkdir(), "is empty"),
    (lambda path: path.write_text("x"), "is no folder"),
])  # fmt: skip
def test_a_folder_without_submissions_is_refused(make, words, tmp_path):
    make(tmp_path / "in")
    with pytest.raises(InputError, match=words):
        grade(tmp_path / "in", tmp_path / "out")


def test_options_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no lesson 'x'"):
        grade(tmp_path, tmp_path, lesson="x")
    with pytest.raises(InputError, match="too few"):
        grade(tmp_path, tmp_path, seconds=0.0)


def test_nothing_is_graded_where_nobody_can_be_locked_in(tmp_path, monkeypatch):
    made_up.hand_in(tmp_path / "in", "ana", "00_start_here", ["as in the lesson"])
    monkeypatch.setattr(grading, "open_room", open_room)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InputError, match="no notebook was graded: .*it needs Linux"):
        grade(tmp_path / "in", tmp_path / "out")


def test_every_exercise_of_every_lesson_is_asked():
    for lesson in lessons():
        shipped = nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4).cells
        assert len(exercises(lesson)) == sum(made_up.BEGIN in cell.source for cell in shipped) > 0
        for exercise in exercises(lesson):
            assert exercise.checks and {check for check, _ in exercise.checks} <= set(questions.ROWS)


@pytest.mark.parametrize("text", ["a\nb", "\ud800", "a\x00b", "\x1b[31m"])
def test_text_of_others_is_one_line_that_can_be_written(text):
    assert submissions.clean(text).isprintable() and submissions.clean(text).encode()


def test_cells_are_read_in_many_threads():
    """Trees made in two threads at once were a SystemError, once the garbage collection between them ran Python."""
    listed, threshold = ["x = [f(y) for y in z if y + 1]\n" * 20], gc.get_threshold()

    def yield_to_others(phase, info):
        time.sleep(0)

    gc.callbacks.append(yield_to_others)
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(2) as threads:
            read = list(threads.map(cells.statements, [listed] * 100))
    finally:
        gc.callbacks.remove(yield_to_others)
        gc.set_threshold(*threshold)
    assert all(len(found) == 20 and not faults for found, faults in read)
