"""Kinds of mistakes, and of styles, that any right solution can be given: caches, low precision, wrapping.

`planted_solutions` plants each kind in every exercise of which it changes an answer.
"""

import copy
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def mapped(change: Callable, value: object) -> object:
    """The value with `change` applied to each number, text and tensor in it."""
    if isinstance(value, list | tuple | set):
        return type(value)(mapped(change, one) for one in value)
    if isinstance(value, dict):
        return {key: mapped(change, one) for key, one in value.items()}
    return change(value)


def key(value: object) -> object:
    return mapped(lambda one: one.tolist() if isinstance(one, Tensor) else one, value)


def size(value: object) -> object:
    """Types and lengths, and no values."""
    return tuple(value.shape) if isinstance(value, Tensor) else len(value) if hasattr(value, "__len__") else 0


def cached(right: Callable, what: Callable) -> Callable:
    """Answers from memory where `what` says that the arguments have been seen."""
    seen = {}

    def answer(*args):
        return copy.copy(seen.setdefault(repr(what(args)), right(*args)))

    return answer


def averaging(right: Callable) -> Callable:
    """State between calls: its mean with the last answer, or the last one where there is none."""
    last = []

    def answer(*args):
        now = right(*args)
        last.append(now)
        if len(last) == 1 or size(last[-2]) != size(now) or isinstance(now, list | str | bool | None):
            return last[-2] if len(last) > 1 else now
        return (now + last[-2]) / 2

    return answer


def lowered(one: object, number: Callable) -> object:
    if isinstance(one, Tensor) and one.is_floating_point():
        return one.to(torch.bfloat16 if number is np.float16 else torch.float64)
    return float(number(one)) if isinstance(one, float) else one


def wrapped(one: object) -> object:
    if isinstance(one, int) and not isinstance(one, bool):
        return int(np.array(one).astype(np.int8))
    return one


def shortened(one: object) -> object:
    if isinstance(one, Tensor) and one.ndim:
        return one[..., :4] if one.shape[-1] > 4 else one
    return one[:4] if isinstance(one, list | str) else one


class Solution:
    """A right function as an object that is called."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)


def numpy_numbers(one: object) -> object:
    kinds = {float: np.float32, int: np.int64, bool: np.bool_}
    if isinstance(one, int) and abs(one) >= 2**63:
        return one
    return kinds.get(type(one), lambda same: same)(one)


def two_places(one: object) -> object:
    if isinstance(one, Tensor):
        return one + (one.round(decimals=2) - one).detach()
    return round(one, 2) if isinstance(one, float) else one


def half(one: object) -> object:
    return lowered(one, np.float16)


def double(one: object) -> object:
    return lowered(one, float)


def before(change: Callable) -> Callable:
    """A kind that changes the arguments."""
    return lambda right: lambda *args: right(*(change(one) for one in args))


def after(change: Callable) -> Callable:
    """A kind that changes the result."""
    return lambda right: lambda *args: mapped(change, right(*args))


def forgets(place: int) -> Callable:
    """A kind that caches answers by all arguments but one."""
    return lambda right: cached(right, lambda args: key([*args[:place], *args[place + 1 :]]))


# Of a right function, a wrong one.
WRONG = {
    "a cache by sizes": lambda right: cached(right, lambda args: list(map(size, args))),
    "its last answer lives on": averaging,
    "half precision": before(functools.partial(mapped, half)),
    "integers of 8 bits": before(functools.partial(mapped, wrapped)),
    "looks at the first four": before(shortened),
    "rounded to two places": after(two_places),
    **{f"a cache that forgets argument {place + 1}": forgets(place) for place in range(6)},
}
RIGHT = {
    "an object that is called": Solution,
    "in double precision": before(functools.partial(mapped, double)),
    "numbers of numpy": after(numpy_numbers),
    "a partial function": functools.partial,
}
# Exercises of which a kind changes no answer.
HARMLESS = {
    "half precision": (
        "best_fit bytes_on_gpu completion_mask filter_table final_answer flops_rl flops_sft format_reward "
        "language_consistency looks_hacked majority_vote pass_at_1 pass_at_k reflection_rate "
        "safe_accuracy says_wait still_reachable stop_at translate worth_mixing"
    ),
    "integers of 8 bits": (
        "best_of_three bradley_terry clipped_objective completion_mask filter_table final_answer "
        "format_reward gae group_advantages grpo_loss kl_penalty language_consistency looks_hacked "
        "majority_vote online_softmax pass_at_1 phantom_error problems_needed reflection_rate "
        "safe_accuracy says_wait silent_share still_reachable target_in_tile tis_weight token_mean "
        "translate tree_value worth_mixing"
    ),
    "looks at the first four": (
        "best_of_three bytes_on_gpu flops_rl flops_sft pass_at_k problems_needed puct_score search_right "
        "silent_share tis_weight worth_mixing written_count"
    ),
    "rounded to two places": (
        "best_fit best_of_three filter_table final_answer flops_rl flops_sft format_reward looks_hacked "
        "majority_vote problems_needed safe_accuracy says_wait still_reachable stop_at target_in_tile "
        "translate worth_mixing written_count"
    ),
    "a cache that forgets argument 1": (
        "says_wait"
    ),
}


def changes(what: str, exercise: str, arguments: int) -> bool:
    """Does this kind change an answer of this exercise, of so many arguments?"""
    forgotten = int(what[-1]) if "forgets" in what else 0
    known = forgotten <= arguments and (not forgotten or arguments > 1)
    return known and exercise not in HARMLESS.get(what, "").split()
