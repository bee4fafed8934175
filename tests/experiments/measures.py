"""Effects, computed from the evaluations that a run leaves in its folder.

A measure takes the runs of one seed, by arm, and returns one value per held-out problem, so that
every claim gets the same treatment: seeds pooled, problems resampled within levels.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from r1lab.errors import InputError
from r1lab.evaluation.estimators import macro_mean
from r1lab.evaluation.measure import Evaluation
from r1lab.files import read_rows


ROW = 1000  # above every level: what `stored` puts between the levels of one row and the next


class Effect(NamedTuple):
    """One value per problem, with the problems' levels and names."""

    values: Float[np.ndarray, "problem"]
    levels: Int[np.ndarray, "problem"]
    ids: list[str]


@dataclass(frozen=True)
class ArmRun:
    """A finished run: its evaluations before and after on all problems, and those along the way."""

    folder: Path

    @cached_property
    def summary(self) -> dict:
        return json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))

    @cached_property
    def base(self) -> Evaluation:
        return Evaluation.load(self.folder / "eval_base.npz")

    @cached_property
    def final(self) -> Evaluation:
        return Evaluation.load(self.folder / "eval_final.npz")

    @cached_property
    def curve(self) -> dict[int, Evaluation]:
        """By step, on the problems that the curve uses. Raises InputError where there is none."""
        paths = sorted((self.folder / "evals").glob("step-*.npz"))
        if not paths:
            raise InputError(f"{self.folder} holds no evals/step-*.npz; run this arm again.")
        return {int(path.stem.removeprefix("step-")): Evaluation.load(path) for path in paths}


@dataclass(frozen=True)
class StoredRun:
    """A finished experiment of which only values were kept.

    Attributes:
        about: `key`, `commit`, `wall_seconds`.
        values: by PART/ROW one per problem, NaN where there is none; levels by levels/ROW.
    """

    about: dict
    values: Mapping[str, np.ndarray]

    @property
    def summary(self) -> dict:
        return self.about

    def row(self, part: str, name: str) -> Effect:
        """Raises InputError where the experiment has kept no such row."""
        if f"{part}/{name}" not in self.values:
            raise InputError(f"This experiment has no {name} of {part}; run it again.")
        values = self.values[f"{part}/{name}"]
        ids = [f"{name}/{place}" for place in range(len(values))]
        return Effect(values.astype(float), self.values[f"levels/{name}"].astype(int), ids)


Runs = Mapping[str, ArmRun | StoredRun]  # of one seed, by arm or experiment
Measure = Callable[[Runs], Effect]


def stored(arm: str, *rows: str) -> Measure:
    """What an experiment has kept of one of its arms, rows one after the other: see `evenly`."""
    experiment, _, part = arm.partition("/")

    def measure(runs: Runs) -> Effect:
        found = [runs[experiment].row(part, name) for name in rows]
        levels = [ROW * place + effect.levels for place, effect in enumerate(found)]
        return Effect(
            np.concatenate([effect.values for effect in found]), np.concatenate(levels),
            [one for effect in found for one in effect.ids],
        )  # fmt: skip

    return measure


def evenly(
    values: Num[np.ndarray, "problem"], levels: Int[np.ndarray, "problem"]
) -> Float[np.ndarray, "problem"]:
    """Scaled so that their mean over levels gives each row of `stored` the same weight, and within
    a row each level: `report.pages.mean_accuracy` of rows however many levels each has.

    Of problems that have a value: a row or a level that has none takes no part.
    """
    levels_of_row = np.bincount(np.unique(levels) // ROW)
    share = levels_of_row.sum() / np.count_nonzero(levels_of_row)  # levels of a row, in the mean
    return values * (share / levels_of_row[levels // ROW])


def blocks(whole: Measure, length: int) -> Measure:
    """Means over `length` values each that follow one another (the last block may be shorter).

    Rollouts of one run are alike when they are near, and an interval that resamples them one by one
    is too narrow.
    """

    def measure(runs: Runs) -> Effect:
        effect = whole(runs)
        starts = np.arange(0, len(effect.values), length)
        means = [effect.values[start : start + length].mean() for start in starts]
        return Effect(np.array(means), effect.levels[starts], [effect.ids[at] for at in starts])

    return measure


def per_problem(evaluation: Evaluation, name: str) -> Float[np.ndarray, "problem"]:
    """An accuracy by its name, or the mean over samples of one of the evaluation's measures.

    "all_right" is 1 where every sample is right: such a group's advantages are all 0.
    Raises InputError where it has none of them, as cons_at_16 of another number of samples.
    """
    values = evaluation.accuracies()
    values["all_right"] = evaluation["correct"].all(axis=1).astype(float)
    if name not in values and name not in evaluation.measures:
        raise InputError(f"This evaluation has no {name}; it has {', '.join(values)}.")
    return values[name] if name in values else evaluation[name].mean(axis=1)


def select(evaluation: Evaluation, ids: Sequence[str]) -> Evaluation:
    """Keep these problems alone, in this order."""
    return evaluation.rows([evaluation.ids.index(name) for name in ids])


def change(before: Evaluation, after: Evaluation, name: str) -> Effect:
    """`after` minus `before`, on the problems of `before`."""
    values = per_problem(select(after, before.ids), name) - per_problem(before, name)
    return Effect(values, before.levels, before.ids)


def gain(arm: str, name: str = "pass_at_1") -> Measure:
    """What training changed in an arm."""
    return lambda runs: change(runs[arm].base, runs[arm].final, name)


def difference(first: Measure, second: Measure, share: float = 1.0) -> Measure:
    """`share` of the first effect minus the second, problem by problem."""

    def measure(runs: Runs) -> Effect:
        one, other = first(runs), second(runs)
        if one.ids != other.ids:
            raise InputError("Two arms were evaluated on different problems; run both again.")
        return one._replace(values=share * one.values - other.values)

    return measure


def top_level(whole: Measure) -> Measure:
    """The effect on the hardest level alone."""

    def measure(runs: Runs) -> Effect:
        effect = whole(runs)
        top = np.flatnonzero(effect.levels == effect.levels.max())
        return Effect(effect.values[top], effect.levels[top], [effect.ids[row] for row in top])

    return measure


def hardest_against_easiest(whole: Measure, times: float) -> Measure:
    """The mean at the hardest level minus `times` that at the easiest; the other levels have no say."""

    def measure(runs: Runs) -> Effect:
        effect = whole(runs)
        easiest, hardest = effect.levels.min(), effect.levels.max()
        ends = np.flatnonzero((effect.levels == easiest) | (effect.levels == hardest))
        weights = np.where(effect.levels[ends] == hardest, 2.0, -2.0 * times)  # a mean over two levels
        return Effect(weights * effect.values[ends], effect.levels[ends], [effect.ids[at] for at in ends])

    return measure


def vote_gain_halfway(arm: str) -> Measure:
    """cons@16 minus pass@1 at the evaluation nearest to half of the steps, the earlier of two."""

    def measure(runs: Runs) -> Effect:
        curve, half = runs[arm].curve, runs[arm].summary["steps"] / 2
        halfway = curve[min(curve, key=lambda step: abs(step - half))]
        gap = per_problem(halfway, "cons_at_16") - per_problem(halfway, "pass_at_1")
        return Effect(gap, halfway.levels, halfway.ids)

    return measure


def end_against_best(arm: str) -> Measure:
    """pass@1 at the end minus pass@1 at the best point of the curve, on the curve's problems."""

    def measure(runs: Runs) -> Effect:
        run = runs[arm]
        ids = next(iter(run.curve.values())).ids
        points = [select(run.base, ids), *run.curve.values(), select(run.final, ids)]
        means = [macro_mean(per_problem(point, "pass_at_1"), point.levels) for point in points]
        return change(points[int(np.argmax(means))], run.final, "pass_at_1")

    return measure


def wrong_length(first: str, second: str) -> Measure:
    """Tokens in wrong answers at the end, in the first arm minus in the second.

    A problem on which one of them has no wrong answer counts as no difference.
    """

    def measure(runs: Runs) -> Effect:
        one = runs[first].final
        ends = (one, select(runs[second].final, one.ids))
        means = [np.ma.masked_where(e["correct"] == 1, e["tokens"]).mean(axis=1) for e in ends]
        return Effect(np.ma.filled(means[0] - means[1], 0.0), one.levels, one.ids)

    return measure


def late_entropy(arm: str) -> Measure:
    """Entropy per token (nats) of the rollouts in the second half of training.

    Rollouts take the place of problems: in all arms of a seed they ask the same questions.
    """

    def measure(runs: Runs) -> Effect:
        rows = read_rows(runs[arm].folder / "metrics.jsonl", ("kind", "step"))
        train = [row for row in rows if row["kind"] == "train"]
        late = train[len(train) // 2 :]
        entropy = np.array([row["entropy"] for row in late])
        return Effect(entropy, np.ones(len(late), dtype=int), [f"step {r['step']}" for r in late])

    return measure
