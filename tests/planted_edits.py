"""Wrong solutions said as edits of a right one: an old text, and what stands there instead."""

import inspect
from collections.abc import Callable


def edits(right: Callable, wrong: dict[str, tuple[str, ...]]) -> dict[str, Callable]:
    """One wrong solution for each (old, new, old, new, ...) of the right one's source."""
    return {what: edited(right, *texts) for what, texts in wrong.items()}


def edited(right: Callable, *texts: str) -> Callable:
    source, names = inspect.getsource(right), dict(right.__globals__)
    for old, new in zip(texts[::2], texts[1::2], strict=True):
        assert old in source, f"{old!r} is not in {right.__name__}"
        source = source.replace(old, new)
    exec(source, names)
    return names[right.__name__]
