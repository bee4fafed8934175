"""A problem, and reading and writing sets of problems as JSON lines."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from r1lab.errors import InputError

SHIPPED = Path(__file__).parents[1] / "data"  # wherever a run is started


@dataclass(frozen=True)
class Problem:
    """One question that can be graded.

    `prompt` is the bare question, without any template. `meta` holds what the family's own
    checker needs (for `signs`: the numbers and the target).
    """

    id: str
    family: str
    level: int
    lang: str
    prompt: str
    solution: str
    tests: list | None = None
    meta: dict = field(default_factory=dict)


# By field, as JSON gives them.
TYPES = {name: (str,) for name in ("id", "family", "lang", "prompt", "solution")} | {
    "level": (int,), "tests": (list, type(None)), "meta": (dict,)
}  # fmt: skip


def problem_id(family: str, prompt: str) -> str:
    """A stable name: two problems with the same question have the same id."""
    return f"{family}-{hashlib.sha256(prompt.encode()).hexdigest()[:12]}"


def save_problems(problems: list[Problem], path: str | Path) -> None:
    """Write one JSON object a line."""
    with open(path, "w", encoding="utf-8") as file:
        for problem in problems:
            file.write(json.dumps(asdict(problem), ensure_ascii=False) + "\n")


def load_problems(path: str | Path) -> list[Problem]:
    """Read a JSONL file of problems.

    Raises:
        InputError: the file is missing, empty, or a line is malformed (the line is named).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of problems; give the path of a .jsonl file.")
    problems = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            problems.append(_problem(line))
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are such
            raise InputError(
                f"{path}, line {number}: not a problem ({error}); each line must be a JSON object "
                f"in UTF-8 with the keys {', '.join(f.name for f in fields(Problem))}."
            ) from error
    if not problems:
        raise InputError(f"{path}: the file is empty; it needs at least one problem a line.")
    return problems


def _problem(line: bytes) -> Problem:
    """Raises ValueError: what is wrong with the line."""
    row = json.loads(line.decode("utf-8"))
    if not isinstance(row, dict):
        raise ValueError(f"it is of type {type(row).__name__}")
    if missing := [name for name in TYPES if name not in row and name not in ("tests", "meta")]:
        raise ValueError(f"found the keys {', '.join(row)}: {', '.join(missing)} missing")
    for name, kind in TYPES.items():
        if name in row and type(row[name]) not in kind:
            raise ValueError(f"{name} is {row[name]!r}, of type {type(row[name]).__name__}")
    return Problem(**{name: row[name] for name in TYPES if name in row})


def held_out_ids(folder: str | Path = SHIPPED) -> frozenset[str]:
    """Ids of all problems in the folder's test sets, `test_*.jsonl`: no stage may train on them.

    Raises:
        InputError: the folder holds no test set, or one is malformed.
    """
    sets = sorted(Path(folder).glob("test_*.jsonl"))
    if not sets:
        raise InputError(
            f"{folder} holds no test set (test_*.jsonl), so nothing says what to keep out of "
            "training; restore it, or run python -m r1lab.world.testsets in the repository's root."
        )
    return frozenset(problem.id for path in sets for problem in load_problems(path))
