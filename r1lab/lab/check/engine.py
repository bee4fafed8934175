"""Ask a learner's function and judge it: by properties, in sentences, within a deadline."""

from __future__ import annotations

import json
import math
import numbers
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import no_type_check

import numpy as np
import torch
from torch import Tensor

SECONDS = 10.0  # for all calls of one check
AGAIN = 0.02  # seconds until a function that swallowed the alarm hears it again
TOLERANCE = 1e-4  # differences below this, in relation to 1 + |truth|, are rounding
EXERCISES: dict[str, Callable[[object], bool]] = {}


class NotYet(Exception):
    """What the learner reads: the property that fails, with the numbers."""


class Overdue(BaseException):
    """Raised inside a learner's function that does not end; no `except Exception` catches it."""


def exercise(properties: Callable[[Asked], None]) -> Callable[[object], bool]:
    """Make a check of a function that asks a learner's function and raises NotYet where it fails.

    The check prints one line and says whether all properties hold. It is named as the exercise.
    """
    name = properties.__name__

    def check(fn: object) -> bool:
        if not callable(fn):
            print(f"{name}: hand over the function itself, without calling it: check.{name}({name}).")
            return False
        asked = Asked(fn)
        verdict = "right"
        try:
            with deadline(SECONDS):
                properties(asked)
        except NotYet as fault:
            verdict = fault
        except Overdue:
            verdict = (
                f"after {SECONDS:g} s your function is still busy with {asked.last}: "
                "a loop in it does not end."
            )
        print(f"{name}: {verdict}")
        return verdict == "right"

    check.__name__, check.__doc__ = name, properties.__doc__
    EXERCISES[name] = check
    return check


def require(holds: object, sentence: str) -> None:
    """Go on if the property holds; otherwise end the check with the sentence."""
    if not holds:
        raise NotYet(sentence)


def number(value: Tensor | float) -> str:
    """Four digits are enough to see what is wrong."""
    return f"{float(value):.4g}"


class Asked:
    """A learner's function, asked on copies, so that nothing it does reaches the next question."""

    def __init__(self, fn: Callable) -> None:
        self.fn, self.last = fn, "nothing yet"

    def __call__(self, *args: object, wrt: int | None = None) -> tuple[object, list]:
        """(what the function returns, the copies it was given); `wrt` gets a gradient."""
        given = [_copy(arg) for arg in args]
        if wrt is not None:
            given[wrt].requires_grad_(True)
        self.last = _cut(args, lambda args: f"({', '.join(map(_typed, args))})")
        try:
            result = _run(self.fn, given)
        except (Exception, SystemExit) as error:
            raise NotYet(_blame(error, self.last)) from None
        require(
            all(map(_same, args, given)),
            f"your function changes its arguments in place (here {self.last}); "
            "whoever calls it still needs them, so make new values.",
        )
        return result, given

    def tensor(self, shape: tuple[int, ...] | None, *args: object) -> Tensor:
        """A finite floating-point tensor of this shape (None: of any), without its graph."""
        return self._tensor(shape, self(*args)[0])

    def gradient(
        self, shape: tuple[int, ...] | None, wrt: int, *args: object
    ) -> tuple[Tensor, Tensor]:
        """(the tensor, the gradient of its sum with respect to argument number `wrt`)."""
        result, given = self(*args, wrt=wrt)
        value = self._tensor(shape, result)
        require(
            result.requires_grad,
            "no gradient flows through your result: look for .detach(), .item() or "
            f"torch.tensor(...) on the way from {self.last}.",
        )
        try:
            [slope] = torch.autograd.grad(result.sum(), given[wrt], materialize_grads=True)
        except RuntimeError as error:
            raise NotYet(_blame(error, self.last)) from None
        return value, slope

    def agree(
        self, truths: list[Callable], args: list, what: Callable, wrt: int | None = None
    ) -> None:
        """The result, and its gradient over argument `wrt`, is that of one of `truths`.

        Args:
            truths: right functions; the learner's is compared with the nearest.
            what: words for the entry at an index, with the numbers that went into it.
        """
        if wrt is None:
            right = [Asked(truth).tensor(None, *args) for truth in truths]
            return _compare(self.tensor(tuple(right[0].shape), *args), right, what)
        pairs = [Asked(truth).gradient(None, wrt, *args) for truth in truths]
        right, right_slopes = zip(*pairs, strict=True)
        yours, slope = self.gradient(tuple(right[0].shape), wrt, *args)
        _compare(yours, right, what)
        require(
            bool(slope.isfinite().all()),
            "the value is right, but its gradient is not finite "
            f"for {self.last}: select before you compute, not after.",
        )
        _compare(slope, right_slopes, lambda at: f"{what(at)} has the right value, but its slope")

    def examples(self, name: str, arguments: Callable = lambda *args: args) -> None:
        """All of `examples.json` for this exercise; `arguments` makes what JSON cannot hold."""
        examples = json.loads(Path(__file__).with_name("examples.json").read_text("utf-8"))
        for why, args, truth in examples[name]:
            self.example(why, arguments(*args), truth)

    def example(self, why: str, args: Iterable, truth: bool | float | str | None) -> None:
        """The result is `truth`, and of its kind: True or False, a number, or a text or None."""
        yours, _ = self(*args)
        if isinstance(yours, Tensor) and yours.ndim == 0 and not yours.is_complex():
            yours = yours.item()
        kind, name = str | None, "a text or None"
        if isinstance(truth, bool):
            kind, name = bool | np.bool_, "True or False"
        elif isinstance(truth, float):
            kind, name = numbers.Real, "a number"
        require(
            isinstance(yours, kind),
            f"your function returns {_kind(yours)} for {self.last}; {name} is expected.",
        )
        if isinstance(truth, float):
            same = -9 < yours < 9e9 and math.isclose(yours, truth, rel_tol=0, abs_tol=1e-6)
        else:
            same = (yours.strip() if isinstance(yours, str) else yours) == truth
        require(same, f"{why}: for {self.last} the result must be {truth!r}; yours is {_cut(yours)}.")

    def _tensor(self, shape: tuple[int, ...] | None, result: object) -> Tensor:
        wanted = f"a floating-point tensor of shape {shape} is expected"
        right_type = isinstance(result, Tensor) and result.is_floating_point()
        require(right_type, f"your function returns {_kind(result)}; {wanted}.")
        found = tuple(result.shape)
        require(shape in (None, found), f"your result has shape {found}; {wanted}.")
        odd = (~result.detach().isfinite()).nonzero().tolist()
        require(
            not odd,
            f"your result is {result[*odd[0]] if odd else 0} at {odd[:1]} for {self.last}: "
            "something is divided by 0, or let in by the mask.",
        )
        return result.detach()


def _compare(yours: Tensor, truths: Iterable[Tensor], what: Callable[[list[int]], str]) -> None:
    """Equal to one of `truths` up to rounding, or a sentence about the entry farthest off."""

    def off(truth: Tensor) -> Tensor:
        return (yours - truth).abs() / (1 + truth.abs())

    truth = min(truths, key=lambda one: float(off(one).max()))
    at = [int(place) for place in torch.unravel_index(off(truth).argmax(), truth.shape)]
    require(
        off(truth).max() < TOLERANCE,
        f"{what(at)} must be {number(truth[*at])}; yours is {number(yours[*at])}.",
    )


@no_type_check  # a checker's own frames would come between the alarm and the function
@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise Overdue inside a learner's function that still runs when `seconds` are over.

    A thread cannot be killed, and another process cannot be used: spawning one needs to pickle
    functions that a notebook defines, forking one may hang where torch has threads. An alarm
    signal also ends a sleep or a slow regular expression. Signals reach the main thread only, which
    is where cells run: a check called from another thread has no deadline.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    traced = sys.gettrace()

    def stop(frame: FrameType, event: str, arg: object) -> Callable:
        if event == "line":
            raise Overdue
        return stop

    def ring(signum: int, frame: FrameType | None) -> None:
        if _is_inside(frame):
            frame.f_trace = stop  # a bare `except:` swallows Overdue, but not one on its own lines
            sys.settrace(lambda *event: None)
            raise Overdue

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
        sys.settrace(traced)


@no_type_check
def _run(fn: Callable, args: list) -> object:
    """The only place from which a learner's function is called; `_is_inside` looks for it."""
    return fn(*args)


@no_type_check
def _is_inside(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not _run.__code__:
        frame = frame.f_back
    return frame is not None


def _blame(error: BaseException, asked: str) -> str:
    """Which line of the learner raised what, and for which input."""
    if isinstance(error, NotImplementedError):
        return f"nothing is written yet: put your code for {asked} where NotImplementedError is."
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    line = f" in line {frames[0].lineno}, `{frames[0].line}`," if frames and frames[0].line else ""
    words = " ".join(str(error).replace("<lambda>", "your function").split())
    return f"your function raises {type(error).__name__}{line} for {asked}: {words[:200]}."


def _typed(arg: object) -> str:
    """An argument as a learner would type it."""
    if not isinstance(arg, Tensor):
        return getattr(arg, "__name__", repr(arg))
    if arg.numel() > 8:
        return f"a tensor of shape {tuple(arg.shape)}"
    return str(arg.double().round(decimals=4).tolist() if arg.is_floating_point() else arg.tolist())


def _kind(result: object) -> str:
    if result is None:
        return "None (a `return` is missing)"
    shown, kind = " ".join(_cut(result).split()), type(result).__name__
    return f"an object ({kind})" if shown.startswith("<") else f"{shown} ({kind})"


def _cut(result: object, text: Callable = repr) -> str:
    try:
        shown = text(result)
    except Exception as error:  # whatever a learner's object does when it is shown
        return f"what cannot be shown ({type(error).__name__})"
    return shown if len(shown) <= 200 else f"{shown[:196]} …"


def _copy(arg: object) -> object:
    if isinstance(arg, Tensor):
        return arg.clone()
    return type(arg)(arg) if isinstance(arg, list | set) else arg


def _same(arg: object, given: object) -> bool:
    if not isinstance(arg, Tensor):
        return arg == given
    return arg.shape == given.shape and bool(((arg == given) | (arg != arg)).all())
