"""Variants of faults in the curves: a table of (expected, what is planted, how the rows change).

Written before the rules that find them.
"""

from tests.planted_faults import Fault, _over_time


def train(**columns):
    """Columns of training rows: a number, or a function of how far the run is, 0 to 1."""

    def change(rows):
        def values(row, t):
            return {name: value(t) if callable(value) else value for name, value in columns.items()}

        return _over_time(rows, "train", values)

    return change


def held_out(value, width=0.03):
    def change(rows):
        def values(row, t):
            at = value(t)
            return {"pass_at_1": at, "pass_at_1_ci95": [at - width, at + width]}

        return _over_time(rows, "eval", values)

    return change


def both(*changes):
    def change(rows):
        for one in changes:
            rows = one(rows)
        return rows

    return change


def still(level):
    return both(held_out(lambda t: level), train(**{"reward": 0.3, "reward/accuracy": level}))


def same_length(rows):
    return _over_time(rows, "eval", lambda row, t: {"mean_tokens": 35})


FLAT = "nothing moves"
UP = "training reward rises and held out accuracy does not"
COURSES = [
    (FLAT, "everything stays at 0.25", both(still(0.25), train(kl=1e-7))),
    (FLAT, "a hard task", still(0.04)),
    (FLAT, "a little up, within the error", both(
        still(0.2), held_out(lambda t: 0.2 + 0.03 * t))),
    (FLAT, "a little down, within the error", both(still(0.3), held_out(lambda t: 0.3 - 0.03 * t))),
    (FLAT, "a coin for a reward", both(still(0.2), train(reward=lambda t: 0.5 + 0.01 * t))),
    (FLAT, "gradients of nearly nothing", both(still(0.25), train(kl=0.0, grad_norm=1e-3))),
    (UP, "memorised questions", both(held_out(lambda t: 0.25), train(
        **{"reward": lambda t: 0.2 + 0.7 * t, "reward/accuracy": lambda t: 0.2 + 0.7 * t}))),
    (UP, "a grader that is fooled", both(held_out(lambda t: 0.4), train(reward=lambda t: 0.3 + 0.5 * t))),
    (UP, "the format alone", both(held_out(lambda t: 0.1), train(
        **{"reward": lambda t: 0.2 + 0.8 * t, "reward/accuracy": 0.1}))),
    ("clip fraction off the scale", "half of the tokens clipped", train(clip_fraction=0.5)),
    ("clip fraction off the scale", "more and more are clipped", train(clip_fraction=lambda t: 0.4 * t)),
    ("gradient norm off the scale", "norm of 1,000", train(grad_norm=1e3)),
    ("gradient norm off the scale", "norm grows a hundredfold", train(
        grad_norm=lambda t: 0.2 * 100**t)),
    ("gradient norm off the scale", "norm of 1e-9", train(grad_norm=1e-9)),
    ("too early to tell", "one evaluation", lambda rows: [
        row for row in rows if row["kind"] == "train" or row["step"] == 0]),
    ("too early to tell", "no evaluation", lambda rows: [row for row in rows if row["kind"] == "train"]),
]  # fmt: skip


COURSE_VARIANTS = [
    Fault(both(plant, same_length) if name == FLAT else plant, "The curves say so.", name, {}, what)
    for name, what, plant in COURSES
]
