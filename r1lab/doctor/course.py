"""What can be wrong with the course of a run, as the rows of its metrics.jsonl show it.

`CAUSES` and `EFFECTS` say of each illness, by its name in `findings.toml`, when the facts show it.
"""

from math import inf, isfinite, nan
from statistics import fmean, median
from types import SimpleNamespace

RISE = 0.15  # of the training reward, from which on something is being learned


def measure(rows: list[dict]) -> SimpleNamespace:
    """Read rows in the order in which they were written.

    Facts are NaN, or an open interval, where the rows do not say:
    rows, broken, first_broken: training rows; those with a skipped update, or a number that is
        none; the first such step.
    jump: where step, clock or learning rate do not go on; empty if they all do.
    accuracy_ever: the highest accuracy reward.
    flat_groups, truncated: shares, of groups and answers, in the last quarter.
    kl: median over the last quarter, nats per token.
    entropy_ratio: last quarter over first three rows.
    first, last, best: held-out accuracy with its 95 % interval, and the step.
    clip_fraction: mean, of the whole run or of its last quarter.
    norm, norm_at_first: median gradient norm in the last and the first quarter.
    reward_at_first, reward, rise: mean in the first and in the last quarter; the difference.
    evals: held-out evaluations.
    format_gain, tokens_growth: held-out, last minus first and last over first.
    """
    train = [row for row in rows if row["kind"] == "train"]
    evals = [row for row in rows if row["kind"] == "eval" and "pass_at_1_ci95" in row]
    quarter = max(1, len(train) // 4)
    early = train[:quarter]
    late = train[-quarter:]
    broken = [row["step"] for row in train if row.get("skipped") or not all(map(_is_number, row.values()))]
    points = [(row["pass_at_1"], *row["pass_at_1_ci95"], row["step"]) for row in evals] or [
        (nan, -inf, inf, 0)
    ]
    start = evals[0] if evals else {}
    end = evals[-1] if evals else {}
    before = _column(early, "reward")
    after = _column(late, "reward")
    return SimpleNamespace(
        rows=len(train), broken=len(broken), first_broken=min(broken, default=0),
        jump=_jump(train), accuracy_ever=_column(train, "reward/accuracy", max),
        flat_groups=_column(late, "zero_std_groups"), truncated=_column(late, "truncated"),
        kl=_column(late, "kl", median), norm=_column(late, "grad_norm", median),
        norm_at_first=_column(early, "grad_norm", median), evals=len(evals),
        clip_fraction=max(_column(train, "clip_fraction"), _column(late, "clip_fraction")),
        reward_at_first=before, reward=after, rise=after - before,
        entropy_ratio=_column(late, "entropy") / (_column(train[:3], "entropy") or nan),
        first=points[0], last=points[-1], best=max(points),
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


def _column(rows, name, summary=fmean):
    """Summarize the numbers in a column; NaN if there is none."""
    return summary([row[name] for row in rows if isfinite(row.get(name, nan))] or [nan])


# The order counts: an illness may be the reason for those after it.
CAUSES = {
    "updates skipped or not a number": lambda f: f.broken > 0,
    "resumed from elsewhere": lambda f: f.jump != "",
    "format exploit": lambda f: f.format_gain > 0.3 and f.last[2] < f.first[1],
    "length grows for nothing": lambda f: (  # where the training reward rises, answers may well grow with it
        f.tokens_growth > (5 if f.rise > RISE else 1.5) and f.best[1] <= f.first[2]
    ),
    "accuracy falls from its best": lambda f: f.last[2] < f.best[1],
    "groups without a lesson": lambda f: f.flat_groups > 0.8,
    "entropy collapses": lambda f: f.entropy_ratio < 0.15,
    "entropy explodes": lambda f: f.entropy_ratio > 3,
    "kl runs away": lambda f: f.kl > 0.2,
    "answers cut off": lambda f: f.truncated > 0.5,
    "clip fraction off the scale": lambda f: f.clip_fraction > 0.1,
    "gradient norm off the scale": lambda f: f.norm < 1e-6 or f.norm > min(50, 20 * f.norm_at_first),
}
# What shows that a run does not learn. Causes that are found elsewhere come first.
EFFECTS = {
    "accuracy reward always 0": lambda f: f.accuracy_ever == 0,
    "training reward rises and held out accuracy does not": lambda f: (
        f.evals > 1 and f.last[1] <= f.first[2] and f.rise > RISE
    ),
    "nothing moves": lambda f: (
        f.evals > 1 and f.last[1] <= f.first[2] and f.first[1] <= f.last[2] and not f.rise > RISE
    ),
    "too early to tell": lambda f: f.rows > 0 and f.evals < 2,
}
