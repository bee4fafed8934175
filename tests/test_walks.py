"""The walks of the architecture page: the files that a value passes, in their order."""

import re
import sys
from pathlib import Path

import pytest

import r1lab
from r1lab.models.policy import load_policy
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.world.small_world import SmallWorld

PACKAGE = Path(r1lab.__file__).parent
PAGE = (PACKAGE.parent / "notebooks" / "architecture.md").read_text(encoding="utf-8")


def walk(title: str) -> list[str]:
    """The files that the page lists under this title."""
    section = PAGE.split(f"**{title}**")[1].split("\n\n**")[0]
    return re.findall(r"^\d+\. `([\w/.]+)`", section, re.MULTILINE)


def files_run(work) -> list[str]:
    """The package's files whose functions run, in the order of their first call."""
    seen: list[str] = []

    def note(frame, event, _):
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(PACKAGE)) and file not in seen:
            seen.append(file)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return [str(Path(file).relative_to(PACKAGE)) for file in seen]


@pytest.fixture(scope="module")
def loop() -> list[str]:
    task = SmallWorld({"signs/1": 1.0}, {"en": 1.0}).task()
    config = GRPOConfig.preset("cpu", rollouts=1, questions=2, group_size=2, minibatches=1, caps=((0, 16),))
    learner = Learner(config, task, *load_policy("data/tiny"), World())
    return files_run(learner.train)


@pytest.mark.parametrize(
    ("title", "most"), [("A prompt to its log-prob", 10), ("A reward to the gradient", 6)]
)
def test_a_value_passes_the_files_that_the_page_names_and_no_more_than_promised(title, most, loop):
    named = walk(title)
    assert set(named) <= set(loop)
    assert 0 < len(named) <= most
    assert f"**{title}** passes {len(named)} files" in PAGE


def test_a_number_reaches_the_page_of_claims_through_few_files():
    named = walk("A number from a run folder to the page of claims")
    assert 0 < len(named) <= 4 and all((PACKAGE / name).is_file() for name in named)


def test_every_room_has_its_line():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    files = {path.name for path in PACKAGE.glob("*.py")}
    table = PAGE.split("## The rooms")[1].split("## Three walks")[0]
    named = set(re.findall(r"`([\w.]+)/?`", table))
    assert rooms <= named
    assert files - named <= {"__init__.py", "__main__.py", "errors.py", "ask.py"}
