"""Ask a learner's function and judge it: by properties, in sentences, within a deadline."""

import copy
import json
import numbers
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import no_type_check

import numpy as np
import torch
from torch import Tensor

SECONDS = 10.0  # for all calls of one check
AGAIN = 0.02  # seconds until a function that swallowed the alarm hears it again
TOLERANCE = 1e-4  # differences below this, in relation to 1 + |truth|, are rounding
KINDS = {bool: (bool | np.bool_, "True or False"), float: (numbers.Real, "a number")}
EXAMPLES = json.loads(Path(__file__).with_name("examples.json").read_text("utf-8"))
EXERCISES = {}


class NotYet(Exception):
    """What the learner reads: the property that fails, with the numbers."""


class Overdue(BaseException):
    """Raised inside a learner's function that does not end; no `except Exception` catches it."""


def exercise(properties: Callable) -> Callable:
    """Make a check of a function that asks a learner's function and raises NotYet where it fails.

    The check prints one line and says whether all properties hold. It is named as the exercise.
    """
    name = properties.__name__

    def check(fn):
        asked = Asked(fn, name)
        verdict = "right"
        try:
            require(callable(fn), f"hand over the function itself, without calling it: check.{name}({name}).")
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


def require(holds: object, sentence: str):
    """Go on if the property holds; otherwise end the check with the sentence."""
    if not holds:
        raise NotYet(sentence)


class Asked:
    """A learner's function, asked on copies, so that nothing it does reaches the next question."""

    def __init__(self, fn, name):
        self.fn, self.name, self.last = fn, name, "nothing yet"

    def __call__(self, *args: object, wrt: Sequence[int] = ()) -> tuple[object, list]:
        """(what the function returns, the copies it was given); arguments `wrt` get a gradient."""
        given = copy.deepcopy(list(args))
        for place in wrt:
            given[place].requires_grad_(True)
        self.last = f"({', '.join(map(_typed, args))})"
        try:
            result = self.fn(*given)
        except (Exception, SystemExit) as error:
            raise NotYet(_blame(error, self.last)) from None
        require(
            all(map(_same, args, given)),
            f"your function changes its arguments in place (here {self.last}); "
            "whoever calls it still needs them, so make new values.",
        )
        return result, given

    def tensors(self, args: list, shape: tuple[int, ...], wrt: Sequence[int]) -> list[Tensor]:
        """[the result], a finite floating-point tensor of this shape.

        Then the gradient of its sum with respect to each of the arguments `wrt`, finite, too.
        """
        result, given = self(*args, wrt=wrt)
        wanted = f"a floating-point tensor of shape {shape} is expected"
        right_type = isinstance(result, Tensor) and result.is_floating_point()
        require(right_type, f"your function returns {kind(result)}; {wanted}.")
        size = tuple(result.shape)
        require(size == shape, f"your result has shape {size}; {wanted}.")
        odd = result[~result.isfinite()].tolist()
        fault = "something is divided by 0, or let in by the mask"
        require(not odd, f"your result holds {odd[:1]} for {self.last}: {fault}.")
        if not wrt:
            return [result.detach()]
        fault = "look for .detach(), .item() or torch.tensor(...) on the way"
        require(result.requires_grad, f"no gradient flows to your result for {self.last}: {fault}.")
        try:
            slopes = torch.autograd.grad(result.sum(), [given[one] for one in wrt], materialize_grads=True)
        except RuntimeError as error:
            raise NotYet(_blame(error, self.last)) from None
        fault = "select before you compute, not after"
        finite = all(slope.isfinite().all() for slope in slopes)
        require(finite, f"your gradient is not finite for {self.last}: {fault}.")
        return [result.detach(), *slopes]

    def cases(self, words: str, wrt: Sequence[int] = (), tensors: object = list):
        """The results on all of `examples.json` for this exercise, [why, arguments, right answers], and
        their gradients over the arguments `wrt` are those of the nearest right answer.

        Args:
            words: what is compared; {0} is the first argument, or its entry at the place of the
                largest difference.
            tensors: arguments of these types are given as tensors.
        """
        parts = ["", *(f" has the right value, but its slope over argument {place + 1}" for place in wrt)]
        for why, stored, *answers in EXAMPLES[self.name]:
            args = [torch.tensor(one) if isinstance(one, tensors) else one for one in stored]
            rights = [list(map(torch.tensor, answer)) for answer in answers]
            yours = self.tensors(args, tuple(rights[0][0].shape), wrt)
            for part, value, *options in zip(parts, yours, *rights):
                offs = [((value - one).abs() / (1 + one.abs()), one) for one in options]
                off, right = min(offs, key=lambda pair: pair[0].max().item())
                at = [int(place) for place in torch.unravel_index(off.argmax(), off.shape)]
                what = words.format(*(_entry(arg, at) for arg in args)) + f" at {at}" * bool(at)
                both = f"must be {right[*at]:.4g}; yours is {value[*at]:.4g}"
                require(off.max() < TOLERANCE, f"{why}: {what}{part} {both}.")

    def examples(self, arguments: Callable = lambda *args: args):
        """The results on all of `examples.json` for this exercise, [why, arguments, truth], are the truth,
        and of its kind: True or False, a number, or a text or None.

        Args:
            arguments: makes what JSON cannot hold.
        """
        for why, stored, truth in EXAMPLES[self.name]:
            yours, _ = self(*arguments(*stored))
            if isinstance(yours, Tensor) and yours.ndim == 0:
                yours = yours.item()
            types, name = KINDS.get(type(truth), (str | None, "a text or None"))
            wrong = f"your function returns {kind(yours)} for {self.last}; {name} is expected."
            require(isinstance(yours, types), wrong)
            if isinstance(truth, float):
                same = -9 < yours < 9e9 and abs(yours - truth) < 1e-6
            else:
                same = (yours.strip() if isinstance(yours, str) else yours) == truth
            wrong = f"{why}: for {self.last} the result must be {truth!r}; yours is {_shown(yours)}."
            require(same, wrong)


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

    def stop(frame, event, arg):
        if event == "line":
            raise Overdue
        return stop

    def ring(signum, frame):
        frame.f_trace = stop  # a bare `except:` swallows Overdue, but not one on its own lines
        sys.settrace(lambda *event: None)
        raise Overdue

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.settrace(traced)


def _blame(error, asked):
    """Which line of the learner raised what, and for which input."""
    if isinstance(error, NotImplementedError):
        return f"nothing is written yet: put your code for {asked} where NotImplementedError is."
    frames = traceback.extract_tb(error.__traceback__)[1:2]  # the first is this module's
    line = "".join(f" in line {frame.lineno}, `{frame.line}`," for frame in frames if frame.line)
    words = " ".join(str(error).replace("<lambda>", "your function").split())
    return f"your function raises {type(error).__name__}{line} for {asked}: {words[:200]}."


def _typed(arg):
    """An argument as a learner would type it."""
    if not isinstance(arg, Tensor):
        return getattr(arg, "__name__", _shown(arg))
    if arg.numel() > 8:
        return f"a tensor of shape {tuple(arg.shape)}"
    return str(arg.double().round(decimals=4).tolist())


def kind(result: object) -> str:
    """A result with its type, as a sentence names it."""
    if result is None:
        return "None (a `return` is missing)"
    shown, kind = _shown(result), type(result).__name__
    return f"an object ({kind})" if shown.startswith("<") else f"{shown} ({kind})"


def _shown(value):
    try:
        shown = " ".join(repr(value).split())
    except Exception as error:  # whatever a learner's object does when it is shown
        return f"what cannot be shown ({type(error).__name__})"
    return shown if len(shown) <= 200 else f"{shown[:196]} …"


def _same(arg, given):
    if not isinstance(arg, Tensor):
        return arg == given
    return np.array_equal(arg, given.detach(), equal_nan=True)


def _entry(arg, at):
    """A tensor's entry at this place, counted round in dimensions that are broadcast; or the argument."""
    if not isinstance(arg, Tensor):
        return arg
    return arg[*(place % size for place, size in zip(at, arg.shape))]
