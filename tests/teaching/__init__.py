"""For instructors: answers to all lessons and an examination bank. README.md says how to use them."""

import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent


def questions() -> list[dict]:
    """The examination bank, in the order of the lessons."""
    return tomllib.loads((FOLDER / "exam.toml").read_text(encoding="utf-8"))["question"]
