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
    # Where the training reward rises, answers may well grow with it.
    limit = 5 if f.reward[1] - f.reward[0] > 0.15 else 1.5
    if f.tokens_growth > limit and f.best[1] <= f.first[2]:
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


def clip_fraction_off_the_scale(f):
    """Many tokens leave the clip range, where healthy runs keep it below 1 %: steps are too long, or
    too many are made on one rollout.

    Lower the learning rate, or learn each rollout once; compare sampler and scorer.
    """
    if f.clip_fraction > 0.1:
        return f"{f.clip_fraction:.0%} of the tokens are clipped"


def gradient_norm_off_the_scale(f):
    """The gradient explodes or vanishes; healthy runs keep it between 0.01 and 10.

    If it is large, lower the learning rate and go back to an earlier checkpoint; if it is near 0,
    look for rewards that do not vary and for log-probs without a gradient.
    """
    if f.norm > 50 or f.norm < 1e-6 or f.norm > 20 * f.norm_at_first:
        return f"median {f.norm:.2g} in the last quarter, {f.norm_at_first:.2g} in the first"


def accuracy_reward_always_0(f):
    """No answer ever earned the accuracy reward: too hard a task, or a grader that refuses all.

    Run r1lab doctor on the model; take easier questions or a better base.
    """
    if f.accuracy_ever == 0:
        return f"0 in all {f.rows} rows"


def training_reward_rises_and_held_out_accuracy_does_not(f):
    """The policy learns what is paid and not what is tested: it knows the training questions by
    heart, fools the grader, or earns a side reward such as the format.

    Read answers with a high reward; ask more different questions; lower the side rewards.
    """
    if f.evals > 1 and f.last[1] <= f.first[2] and f.reward[1] - f.reward[0] > 0.15:
        return f"reward from {f.reward[0]:.2f} to {f.reward[1]:.2f}, {_held_out(f)}"


def nothing_moves(f):
    """The run has not learned: held-out accuracy ends within the error of its start, and the reward
    has hardly risen. The reward may not depend on the answer, the questions be too hard for the
    model, or the steps too few or too small.

    Check that a right answer earns more than a wrong one; take easier questions or a better base;
    multiply the learning rate by ten; then give it more rollouts.
    """
    flat = f.last[1] <= f.first[2] and f.first[1] <= f.last[2] and f.reward[1] - f.reward[0] <= 0.15
    if f.evals > 1 and flat:
        return (
            f"{_held_out(f)}; reward from {f.reward[0]:.2f} to {f.reward[1]:.2f}; KL {f.kl:.1g} nats "
            f"per token after {f.rows} rollouts"
        )


def too_early_to_tell(f):
    """Whether a run learns shows in held-out accuracy, of which there are not two values yet.

    Ask again after the next evaluation, or evaluate more often (--eval-every).
    """
    if f.rows > 0 and f.evals < 2:
        return f"{f.rows} rollouts and {f.evals} held-out evaluations"


VERDICTS = 4  # the last rules name effects: causes that are found elsewhere come first

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
    clip_fraction: mean, of the whole run or of its last quarter.
    norm, norm_at_first: median gradient norm in the last and the first quarter.
    reward: mean in the first and in the last quarter.
    evals: held-out evaluations.
    format_gain, tokens_growth: held-out, last minus first and last over first.
    """


def measure(rows: list[dict]) -> Course:
    """Read rows in the order in which they were written."""
    train = [row for row in rows if row["kind"] == "train"]
    evals = [row for row in rows if row["kind"] == "eval" and "pass_at_1_ci95" in row]
    quarter = max(1, len(train) // 4)
    early, late = train[:quarter], train[-quarter:]
    broken = [row["step"] for row in train if row.get("skipped") or not all(map(_is_number, row.values()))]
    points = [(row["pass_at_1"], *row["pass_at_1_ci95"]) for row in evals] or [(nan, -inf, inf)]
    start, end = (evals[0], evals[-1]) if evals else ({}, {})
    return Course(
        rows=len(train), broken=len(broken), first_broken=broken[0] if broken else 0,
        jump=_jump(train), accuracy_ever=max(_column(train, "reward/accuracy"), default=nan),
        flat_groups=_mean(late, "zero_std_groups"), truncated=_mean(late, "truncated"),
        kl=_median(late, "kl"), norm=_median(late, "grad_norm"),
        norm_at_first=_median(early, "grad_norm"), evals=len(evals),
        clip_fraction=max(_mean(train, "clip_fraction"), _mean(late, "clip_fraction")),
        reward=(_mean(early, "reward"), _mean(late, "reward")),
        entropy_ratio=_mean(late, "entropy") / (_mean(train[:3], "entropy") or nan),
        first=points[0], last=points[-1], best=max(points),
        best_step=evals[points.index(max(points))]["step"] if evals else 0,
        format_gain=end.get("format", nan) - start.get("format", nan),
        tokens_growth=end.get("mean_tokens", nan) / (start.get("mean_tokens") or nan),
    )  # fmt: skip


def _jump(train):
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


def _is_number(value):
    return not isinstance(value, float) or isfinite(value)


def _column(rows, name):
    return [row[name] for row in rows if name in row and _is_number(row[name])]


def _median(rows, name):
    return statistics.median(_column(rows, name) or [nan])


def _held_out(f):
    return f"held-out accuracy from {f.first[0]:.2f} to {f.last[0]:.2f} (intervals overlap)"


def _mean(rows, name):
    return statistics.fmean(_column(rows, name) or [nan])
