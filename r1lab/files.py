"""Files that are whole or absent, rows that a run writes, and where the shipped data lies."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1lab.errors import InputError

PACKAGE = Path(__file__).parent
# Beside the package in a checkout, inside it where a wheel was installed.
SHIPPED = PACKAGE / "data" if (PACKAGE / "data").is_dir() else PACKAGE.parent / "data"


def shipped(path: str | Path) -> Path:
    """Find a file or folder. The user's own wins; else data/... is what ships with r1lab."""
    path = Path(path)
    ours = SHIPPED.joinpath(*path.parts[1:])
    if path.parts[:1] == ("data",) and not path.exists() and ours.exists():
        return ours
    return path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file or a folder; it becomes `path` at the end, and never in half."""
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)
    try:
        yield partial
    except BaseException:
        _remove(partial)
        raise
    if path.is_dir():
        shutil.rmtree(path)
    partial.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The file is the old one or the new one, never half of it."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_rows(path: Path, needed: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The objects of a JSONL file. A last line that was cut while being written is left out.

    Raises:
        InputError: a line is not an object, or lacks one of the `needed` keys (it is named).
    """
    # Not splitlines: JSON strings may hold other line separators, such as U+2028.
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):  # no newline after it: the writer was stopped here
                break
            raise InputError(f"{path}, line {number}: not valid JSON.") from None
        keys = row if isinstance(row, dict) else {}
        missing = [key for key in needed if key not in keys]
        if not isinstance(row, dict) or missing:
            raise InputError(f"{path}, line {number}: this is no object, or lacks {missing}.")
        rows.append(row)
    return rows
