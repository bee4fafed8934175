"""Files that are whole or absent, rows that a run writes, and where the shipped data lies."""

import json
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1lab.errors import InputError

Row = dict[str, Any]
PACKAGE = Path(__file__).parent
# Beside the package in a checkout, inside it where a wheel was installed.
SHIPPED = PACKAGE / "data" if (PACKAGE / "data").is_dir() else PACKAGE.parent / "data"
NOTEBOOKS = SHIPPED.with_name("notebooks")


def shipped(path: str | Path) -> Path:
    """Find a file or folder. The user's own wins; else data/... is what ships with r1lab."""
    path = Path(path)
    ours = SHIPPED.joinpath(*path.parts[1:])
    if path.parts[:1] == ("data",) and not path.exists() and ours.exists():
        return ours
    return path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a place to write a file or a folder; it becomes `path` at the end, and never in half."""
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


def _remove(path):
    shutil.rmtree(path, ignore_errors=True)  # of which a file, or nothing, is one
    path.unlink(missing_ok=True)


def read_toml(module: str, name: str) -> Row:
    """Read the table NAME.toml that lies beside a module of the package, given its `__file__`."""
    return tomllib.loads(Path(module).with_name(f"{name}.toml").read_text(encoding="utf-8"))


def write_text(path: Path, text: str):
    """Write a file that is the old one or the new one, never half of it."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object):
    """Write a JSON file for people and programs."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: Iterable[Row]):
    """Write a JSONL file, one object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_rows(
    path: str | Path, needed: Sequence[str] = (), read: Callable[[Row], Any] = dict, complete: bool = False
) -> list[Any]:
    """Read a JSONL file, one object a line; blank lines are skipped.

    Args:
        needed: keys that each object must have.
        read: what makes a row of an object; its ValueError says what is wrong.
        complete: refuse a file without rows, or whose last line was cut while being written. A run's
            file may be so, and that line is left out.
    Raises:
        InputError: the file is missing, or a line cannot be read (it is named).
    """
    path = shipped(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a .jsonl file.")
    rows = []
    # Lines of bytes: JSON strings may hold other line separators, such as U+2028.
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
            if not isinstance(row, dict):
                raise ValueError(f"it is of type {type(row).__name__}")
            if missing := [key for key in needed if key not in row]:
                raise ValueError(f"found the keys {', '.join(row)}: {', '.join(missing)} missing")
            rows.append(read(row))
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are such
            if not complete and not line.endswith(b"\n"):
                break
            keys = f" with the keys {', '.join(needed)}" if needed else ""
            raise InputError(
                f"{path}, line {number}: cannot be read ({error}); each line must be a JSON object in "
                f"UTF-8{keys}."
            ) from error
    if complete and not rows:
        raise InputError(f"{path} is empty; it needs at least one JSON object a line.")
    return rows
