"""The learner's side of a check: call a function with plain data, and give its answer as plain data.

No right answer is in this module, and it imports nothing of the lab: `r1lab grade` runs it beside the
functions that learners hand in. Questions and replies are JSON texts.
"""

import json
import numbers
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

EXECUTED = []  # what an answer fills that is run in place of being read


class NotYet(Exception):
    """What the learner reads: the property that fails, with the numbers."""


@dataclass(frozen=True)
class OneOf:
    """A function as an argument: is a word among these?"""

    words: list[str]

    def __call__(self, word: str) -> bool:
        return word in self.words

    @property
    def __name__(self) -> str:
        return f"is_target: one of {self.words}"


# What JSON cannot hold is stored as a table of one key, such as {"tensor": [0.5, 1.0]}.
MAKERS = {"tensor": torch.tensor, "set": set, "tuple": tuple, "one_of": OneOf}


def require(holds: object, sentence: str):
    """Go on if the property holds; otherwise end the check with the sentence."""
    if not holds:
        raise NotYet(sentence)


def decode(text: str) -> object:
    """Read JSON in which the tables of MAKERS stand for what they make."""

    def make(table):
        name = next(iter(table), "")
        return MAKERS[name](table[name]) if name in MAKERS else table

    return json.loads(text, object_hook=make)


def plain(value: object) -> object:
    """Make plain data of a result, a number of any kind included. Raises TypeError where it is none."""
    if isinstance(value, Tensor):
        return {"tensor": value.detach().tolist()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"a {type(value).__name__} is no plain data")


def reply(fn: Callable, question: str, slopes: Sequence[int] = ()) -> str:
    """Ask a function: {"kind": what it returns, in words, "values": [its result, slopes ...]}.

    A result that is not plain data leaves "values" empty. Where asking fails: {"fault": a sentence}.

    Args:
        question: a list of arguments.
        slopes: the arguments over which the gradient of the result's sum is asked, too.
    """
    try:
        kind, values = _answer(fn, question, slopes)
    except NotYet as fault:
        return json.dumps({"fault": str(fault)})
    try:
        return json.dumps({"kind": kind, "values": list(map(plain, values))})
    except Exception:  # whatever a learner's object does when it is read
        return json.dumps({"kind": kind, "values": []})


def _answer(fn, question, slopes):
    args, given = decode(question), decode(question)
    for place in slopes:
        given[place].requires_grad_(True)
    asked = typed(args)
    EXECUTED.clear()
    try:
        result = fn(*given)
    except (Exception, SystemExit) as error:
        raise NotYet(_blame(error, asked)) from None
    never = "a model's text is never run: read it with a pattern or with Fraction"
    require(not EXECUTED, f"your function executed an answer, {asked}; {never}.")
    require(
        all(map(_same, args, given)),
        f"your function changes its arguments in place (here {asked}); "
        "whoever calls it still needs them, so make new values.",
    )
    wrt = [given[place] for place in slopes]
    if not wrt or not isinstance(result, Tensor):
        return kind(result), [result]
    if not result.requires_grad:
        return kind(result), [result, *map(torch.zeros_like, wrt)]
    try:
        gradients = torch.autograd.grad(result.sum(), wrt, materialize_grads=True)
    except RuntimeError as error:
        raise NotYet(_blame(error, asked)) from None
    return kind(result), [result, *gradients]


def _blame(error, asked):
    """Which line of the learner raised what, and for which input."""
    if isinstance(error, NotImplementedError):
        return f"nothing is written yet: put your code for {asked} where NotImplementedError is."
    frames = traceback.extract_tb(error.__traceback__)[1:2]  # the first is this module's
    line = "".join(f" in line {frame.lineno}, `{frame.line}`," for frame in frames if frame.line)
    words = " ".join(str(error).replace("<lambda>", "your function").split())
    return f"your function raises {type(error).__name__}{line} for {asked}: {words[:200]}."


def typed(args: list) -> str:
    """Arguments as a learner would type them."""
    return f"({', '.join(map(_typed, args))})"


def _typed(arg):
    if not isinstance(arg, Tensor):
        return getattr(arg, "__name__", shown(arg))
    if arg.numel() > 8:
        return f"a tensor of shape {tuple(arg.shape)}"
    return str(arg.double().round(decimals=4).tolist())


def kind(result: object) -> str:
    """A result with its type, as a sentence names it."""
    if result is None:
        return "None (a `return` is missing)"
    text, kind = shown(result), type(result).__name__
    return f"an object ({kind})" if text.startswith("<") else f"{text} ({kind})"


def shown(value: object) -> str:
    """A value in one line of at most 200 characters, whatever it does when it is shown."""
    try:
        text = " ".join(repr(value).split())
    except Exception as error:
        return f"what cannot be shown ({type(error).__name__})"
    return text if len(text) <= 200 else f"{text[:196]} …"


def _same(arg, given):
    if not isinstance(arg, Tensor):
        return arg == given
    return np.array_equal(arg, given.detach(), equal_nan=True)
