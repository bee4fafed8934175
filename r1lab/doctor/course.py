"""What can be wrong with the course of a run, as the rows of its metrics.jsonl show it.

Each rule is a function that gets a `Course` and returns the numbers that say so, or None; the first
paragraph of its docstring is the cause, the second the fix.
"""

import inspect
import statistics
from math import inf, isfinite, nan
from types import SimpleNamespace


def updates_skipped_or_not_a_number(f):
    """Loss, gradient or another measure is NaN, or the loop skipped updates.

    Go back to the checkpoint before and lower the learning rate.
    """
    if f.broken > 0:
        return f"{f.broken} of {f.rows} rows, the first at step {f.first_broken}"


def resumed_from_elsewhere(f):
    """The run was continued without its step, clock or schedule.

    Restore weights, optimizer, step and data position together (--resume does).
    """
    if f.jump != "":
        return f.jump


def accuracy_reward_always_0(f):
    """No answer ever earned the accuracy reward: too hard a task, or a grader that refuses all.

    Run r1lab doctor on the model; take easier questions or a better base.
    """
    if f.accuracy_ever == 0:
        return f"0 in all {f.rows} rows"


def format_exploit(f):
    """The policy learned the tags and unlearned the task: the format is the easier reward.

    Give format less weight, or none where the answer is wrong; check the grader.
    """
    if f.format_gain > 0.3 and f.last[2] < f.first[1]:
        return (
            f"format rose by {f.format_gain:.2f}, accuracy went from {f.first[0]:.2f} to "
            f"{f.last[0]:.2f}"
        )


def length_grows_for_nothing(f):
    """Answers grow and accuracy does not: the reward or the length normaliser favours length, or
    the weights drift at random.

    Look at the longest answers; take the token or constant normaliser, and a reward for truth.
    """
    if f.tokens_growth > 1.5 and f.best[1] <= f.first[2]:
        return (
            f"answers are {f.tokens_growth:.1f} times as long; accuracy from {f.first[0]:.2f} to "
            f"{f.last[0]:.2f}"
        )


def accuracy_falls_from_its_best(f):
    """The policy was better before: the learning rate wears its skills down, or the reward pays
    for something else.

    Take the best checkpoint; lower the learning rate or raise beta.
    """
    if f.last[2] < f.best[1]:
        return f"{f.best[0]:.2f} at step {f.best_step}, {f.last[0]:.2f} now (intervals apart)"


def groups_without_a_lesson(f):
    """In nearly all groups every answer earns the same: the questions are all too hard, too easy,
    or the groups too small.

    Change the mix of levels, enlarge the groups, or stop: this reward has no more to teach.
    """
    if f.flat_groups > 0.8:
        return f"{f.flat_groups:.0%} of the last groups do not vary"


def entropy_collapses(f):
    """The policy has become nearly deterministic: its groups hold copies and learning ends.

    Raise clip_high, lower the learning rate, or drop questions that are always right.
    """
    if f.entropy_ratio < 0.15:
        return f"entropy is {f.entropy_ratio:.2f} times that of the start"


def entropy_explodes(f):
    """The policy falls apart into noise: steps are too large.

    Lower the learning rate and go back to an earlier checkpoint.
    """
    if f.entropy_ratio > 3:
        return f"entropy is {f.entropy_ratio:.1f} times that of the start"


def kl_runs_away(f):
    """The policy is far from its reference, as after steps that are too large or a false reward.

    Raise beta, lower the learning rate, or refresh the reference more often.
    """
    if f.kl > 0.2:
        return f"{f.kl:.2f} nats per token in the last quarter"


def answers_cut_off(f):
    """Most answers hit the cap and earn nothing, right or wrong.

    Raise the cap (--caps) or punish what is cut off less than what is wrong.
    """
    if f.truncated > 0.5:
        return f"{f.truncated:.0%} of the last answers are cut off"


# All functions up to here.
RULES = [each for each in list(globals().values()) if inspect.isfunction(each)]


class Course(SimpleNamespace):
    """What the rows show; NaN or an open interval where they do not say.

    rows, broken, first_broken: training rows; those with a skipped update, or a number that is
        none; the first such step.
    jump: where step, clock or learning rate do not go on; empty if they all do.
    accuracy_ever: the highest accuracy reward.
    flat_groups, truncated: shares, of groups and answers, in the last quarter.
    kl: median over the last quarter, nats per token.
    entropy_ratio: last quarter over first three rows.
    first, last, best: held-out accuracy with its 95 % interval; best_step.
    format_gain, tokens_growth: held-out, last minus first and last over first.
    """


def measure(rows: list[dict]) -> Course:
    """Read rows in the order in which they were written."""
    train = [row for row in rows if row["kind"] == "train"]
    evals = [row for row in rows if row["kind"] == "eval" and "pass_at_1_ci95" in row]
    late = train[-max(1, len(train) // 4) :]
    broken = [row["step"] for row in train if row.get("skipped") or not all(map(_is_number, row.values()))]
    points = [(row["pass_at_1"], *row["pass_at_1_ci95"]) for row in evals] or [(nan, -inf, inf)]
    start, end = (evals[0], evals[-1]) if evals else ({}, {})
    return Course(
        rows=len(train), broken=len(broken), first_broken=broken[0] if broken else 0,
        jump=_jump(train), accuracy_ever=max(_column(train, "reward/accuracy"), default=nan),
        flat_groups=_mean(late, "zero_std_groups"), truncated=_mean(late, "truncated"),
        kl=statistics.median(_column(late, "kl") or [nan]),
        entropy_ratio=_mean(late, "entropy") / (_mean(train[:3], "entropy") or nan),
        first=points[0], last=points[-1], best=max(points),
        best_step=evals[points.index(max(points))]["step"] if evals else 0,
        format_gain=end.get("format", nan) - start.get("format", nan),
        tokens_growth=end.get("mean_tokens", nan) / (start.get("mean_tokens") or nan),
    )  # fmt: skip


def _jump(train: list[dict]) -> str:
    highest = 0.0
    for before, row in zip(train, train[1:]):
        if not 0 < row["step"] - before["step"] <= train[1]["step"] - train[0]["step"]:
            return f"after step {before['step']} comes step {row['step']}"
        if row.get("elapsed", 0) < before.get("elapsed", 0):
            return f"at step {row['step']} the clock goes back to {row['elapsed']:.0f} s"
        highest = max(highest, before.get("lr", 0))
        if row.get("lr", highest) < 0.9 * highest:
            return f"at step {row['step']} the learning rate goes back to {row['lr']:g}"
    return ""


def _is_number(value: object) -> bool:
    return not isinstance(value, float) or isfinite(value)


def _column(rows: list[dict], name: str) -> list[float]:
    return [row[name] for row in rows if name in row and _is_number(row[name])]


def _mean(rows: list[dict], name: str) -> float:
    return statistics.fmean(_column(rows, name) or [nan])
