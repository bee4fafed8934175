"""The wheel, installed and used in an empty folder: the package finds the data that ships with it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from r1lab.files import NOTEBOOKS, SHIPPED, shipped
from r1lab.launch.lessons import lab

ROOT = Path(__file__).resolve().parents[1]
MAX_WHEEL_BYTES = 20 * 2**20


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's content and nothing else."""
    copy, wheels = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheels")
    hidden = shutil.ignore_patterns("__pycache__", "hub")
    for name in ("r1lab", "data", "notebooks"):
        shutil.copytree(ROOT / name, copy / name, ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = ["wheel", "--no-deps", "--no-build-isolation", "-q", "-w", wheels, copy]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, cwd=wheels)
    (wheel,) = wheels.glob("*.whl")
    assert wheel.stat().st_size < MAX_WHEEL_BYTES
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("zero --model data/tiny --rollouts 1 --questions 2 --group-size 2 --minibatches 1 "
         "--caps 0 16 --processes 1 --eval-samples 1 --eval-problems 1 --final-samples 1",
         "Report: runs/zero"),
        ("sample data/zero --level 1 --group-size 2 --max-tokens 8", "advantage"),
        ("eval data/zero --data signs --samples 1 --problems 1 --max-tokens 8", "Level 1"),
        ("skills data/tiny --samples 1 --problems 1", "answer copies last"),
        ("plan --preset cpu", "peak"),
        ("claims", "verdict"),
        ("lab --copy-only", "Lessons: notebooks"),
    ],
)  # fmt: skip
def test_the_wheel_works_in_an_empty_folder(installed, tmp_path, options, words):
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "r1lab", *options.split()], cwd=tmp_path, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and words in done.stdout, done.stdout + done.stderr[-3000:]


@pytest.mark.slow
def test_the_wheel_grades(installed, tmp_path):
    (tmp_path / "in/ana").mkdir(parents=True)
    shutil.copy(NOTEBOOKS / "00_start_here.ipynb", tmp_path / "in/ana")
    done = subprocess.run(
        [sys.executable, "-m", "r1lab", "grade", "in"], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "ana: 00_start_here: 1 of 1 points" in done.stdout
    assert (tmp_path / "grades/grades.csv").is_file() and (tmp_path / "grades/students/ana.html").is_file()


def test_the_wheel_holds_every_file_of_the_package(installed):
    folders = ("r1lab", "data", "notebooks")
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True)
    paths = [Path(line) for line in listed.stdout.splitlines()]
    inside = [path if path.parts[0] == "r1lab" else Path("r1lab", path) for path in paths]
    assert len(inside) > 100
    assert not [str(path) for path in inside if not (installed / path).is_file()]


def test_a_path_of_the_user_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped("data/zero") == SHIPPED / "zero" and (SHIPPED / "zero").is_dir()
    (tmp_path / "data" / "zero").mkdir(parents=True)
    assert shipped("data/zero") == Path("data/zero")
    for other in ("data/mine.jsonl", "runs/zero", "gsm8k", str(tmp_path / "data" / "base")):
        assert shipped(other) == Path(other)


def test_lessons_are_copied_whole_and_your_own_changes_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/00_start_here.ipynb").write_text("mine")
    assert lab(Path("mine"), copy_only=True) == 0
    assert Path("mine/00_start_here.ipynb").read_text() == "mine"
    for source in NOTEBOOKS.rglob("*"):
        copy = Path("mine", source.relative_to(NOTEBOOKS))
        stays = {"__pycache__", ".ipynb_checkpoints", "grading"}  # the last has answers
        assert copy.exists() is not bool(stays & set(copy.parts))
