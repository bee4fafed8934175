"""What instructors have beyond the lessons: it is whole, its numbers hold, and learners' copies lack it."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from r1lab.launch.lessons import lab
from tests import NOTEBOOKS
from tests.teaching import FOLDER, questions
from tests.teaching.computed import COMPUTED
from tests.tools import book, bootstrap, student

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
BANK = questions()
IDS = [question["id"] for question in BANK]
NUMBERED = [question for question in BANK if "numbers" in question]
WORDS = dict(zip("123456789", "one two three four five six seven eight nine".split()))
BOX = re.compile(r"\*\*(?:Predict first|One last prediction)[.,]+\*\*(.*?)(?=<details>|</blockquote>)", re.DOTALL)


def plain(text):
    return " ".join(text.split())


def test_the_bank_has_sixty_questions_of_every_lesson_and_level():
    assert len(BANK) == len(set(IDS)) == 60
    assert {question["lesson"] for question in BANK} == {path.stem for path in LESSONS}
    assert all(question["id"].split("-")[0] == question["lesson"].split("_")[0] for question in BANK)
    assert {question["level"] for question in BANK} == {1, 2, 3}
    for question in BANK:
        assert question["points"] == sum(points for points, _ in question["rubric"]), question["id"]
        assert len(question["rubric"]) >= 2 and question["answer"].strip(), question["id"]


def printed(number, text):
    """Does the text hold the number, in figures or as a word?"""
    text = text.replace("−", "-").replace(",", "").lower()
    found = re.search(rf"(?<![\d.]){re.escape(number)}(?!\.?\d)", text)
    return bool(found) or WORDS.get(number, "-") in text


@pytest.mark.parametrize("question", NUMBERED, ids=[question["id"] for question in NUMBERED])
def test_the_numbers_of_an_answer_are_those_computed(question):
    computed = COMPUTED[question["id"]]()
    assert len(computed) == len(question["numbers"])
    for number, value in zip(question["numbers"], computed):
        places = len(number.partition(".")[2])
        assert abs(value - float(number)) <= 0.5 * 10**-places + 1e-9, f"{number} is {value:.6f}"
        assert printed(number, question["answer"]), f"the answer does not print {number}"


def test_nothing_is_computed_that_is_not_asked():
    assert set(COMPUTED) == {question["id"] for question in NUMBERED}


# ---- answers to the lessons' own questions ----------------------------------------------------------


def answers():
    """By lesson: the questions quoted for its boxes, and the titles of its exercises."""
    text = (FOLDER / "answers.md").read_text(encoding="utf-8")
    found = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = part.partition("\n")
        boxes = re.findall(r"^\d+\. \*(.+?)\*", rest, flags=re.MULTILINE | re.DOTALL)
        found[name.strip()] = list(map(plain, boxes)), re.findall(r"^- \*\*(Exercise \d+: [^*]+?)\.?\*\*", rest, re.MULTILINE)
    return found


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_box_and_every_exercise_of_a_lesson_has_its_answer(path):
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    asked = [plain(box[1]) for box in BOX.finditer(text)]
    quoted, exercises = answers()[path.stem]
    assert len(quoted) == len(asked), f"answers.md has {len(quoted)} answers for {len(asked)} boxes"
    assert [words for words, box in zip(quoted, asked) if words not in box] == []
    assert exercises == re.findall(r"^### (Exercise \d+: .+)$", text, re.MULTILINE)


# ---- learners' copies -------------------------------------------------------------------------------


def leaks(folder):
    """Files of a folder that hold words of the bank or of the answers."""
    secret = [plain(question[part])[:60] for question in BANK for part in ("ask", "answer")]
    secret += [plain(line)[:60] for line in (FOLDER / "answers.md").read_text("utf-8").splitlines() if len(line) > 60]
    found = []
    for path in folder if isinstance(folder, list) else folder.rglob("*"):
        if path.is_file() and path.suffix in (".ipynb", ".md", ".py", ".json", ".jsonl", ".html", ".toml", ".txt"):
            text = plain(path.read_text(encoding="utf-8").replace('\\"', '"').replace("\\n", " "))
            found += [str(path)] * any(words in text for words in secret)
    return found


def test_a_leak_is_found(tmp_path):
    (tmp_path / "notes.md").write_text(f"I have seen it: {BANK[7]['ask']}", encoding="utf-8")
    assert leaks(tmp_path) == [str(tmp_path / "notes.md")]


def test_learners_copies_hold_no_question_and_no_answer(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    student.main(out=tmp_path / "student")
    lab(tmp_path / "lab", copy_only=True)
    assert len(list(tmp_path.rglob("*.ipynb"))) == 2 * len(LESSONS)
    assert leaks(tmp_path) == []


def test_neither_the_wheel_nor_the_book_has_them():
    listed = subprocess.run(["git", "ls-files", "r1lab", "data", "notebooks"], cwd=ROOT, capture_output=True, text=True)
    shipped = [ROOT / line for line in listed.stdout.splitlines()] or list((ROOT / "notebooks").rglob("*"))
    assert leaks(shipped) == []
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert all(name.split(".")[0] == "r1lab" for name in packages)
    chapters = [one["file"] for part in book.contents(ROOT)["parts"] for one in part["chapters"]]
    assert not [name for name in chapters if name.startswith("tests/")]


@pytest.mark.parametrize(("options", "code", "words"), [
    ("--lessons 01 --levels 1 --answers", 0, "- 1: why the others are not"),
    ("--count 5 --seed 3", 0, "points in 5 questions"),
    ("--lessons 99", 2, "There is no lesson 99"),
    ("--count 61", 2, "61 questions cannot be drawn from 60"),
])  # fmt: skip
def test_a_paper_is_printed_or_refused_in_a_sentence(options, code, words):
    command = [sys.executable, "-m", "tests.teaching", *options.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code and words in done.stdout + done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert ("- 1:" in done.stdout) is ("--answers" in options)


# ---- the page for teachers --------------------------------------------------------------------------


def minutes(text):
    return sum(map(int, re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)))


def test_the_figures_of_the_page_are_the_repositorys():
    page = (NOTEBOOKS / "teaching.md").read_text(encoding="utf-8")
    hour = page.partition("## One hour")[2].partition("## One day")[0]
    assert minutes(hour) == 60
    listed = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    lessons = sum(map(int, re.findall(r"^\| \[.*?\| (\d+) min \|", listed, flags=re.MULTILINE)))
    assert f"| running all lessons once | {lessons} minutes |" in page
    run = json.loads((ROOT / "data/runs/zero/summary.json").read_text())
    assert f"| {run['wall_seconds'] / 60:.1f} minutes |" in page and f"| {run['peak_memory_gb']:.1f} GB |" in page
    assert f"would want {40 * 2} cores and {40 * run['peak_memory_gb']:.0f} GB" in page
    size = int(re.match(r"(\d+) MB", bootstrap.SIZES["cpu"])[1]) + 500
    assert f"| {size / 1000:.1f} GB |" in page and f"Forty seats download {40 * round(size / 1000, 1):.0f} GB" in page


def test_the_page_counts_exercises_without_a_check():
    found = checked = 0
    for path in LESSONS:
        cells = nbformat.read(path, as_version=4).cells
        for cell, following in zip(cells, cells[1:]):
            if cell.cell_type == "code" and student.BEGIN in cell.source:
                found, checked = found + 1, checked + ("check." in following.source)
    assert f"({found - checked} of {found})" in (NOTEBOOKS / "teaching.md").read_text(encoding="utf-8")
