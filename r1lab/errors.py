"""The one error that means: your input is wrong, and here is what to do; and what others say."""

from __future__ import annotations  # the installation runs on old Pythons, too

from collections.abc import Collection


class InputError(ValueError):
    """Bad input, explained in one sentence. The command line prints it and exits with code 2."""


def reason(error: BaseException) -> str:
    """The kind of an error and the first line of what it says, for one sentence about it."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:200]


def require_known(name: str, names: Collection[str], what: str):
    """Raise InputError, with the list of what there is, where no `what` has this name."""
    if name not in names:
        raise InputError(f"there is no {what} {name!r}; choose one of {', '.join(names)}.")
