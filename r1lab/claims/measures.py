"""Effects, computed from the evaluations that a run leaves in its folder.

A measure takes the runs of one seed, by arm, and returns one value per held-out problem, so that
every claim gets the same treatment: seeds pooled, problems resampled within levels.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from r1lab.errors import InputError
from r1lab.evaluation.estimators import macro_mean
from r1lab.evaluation.evaluate import Evaluation


class Effect(NamedTuple):
    """One value per problem, and the problems' levels."""

    values: Float[np.ndarray, "problem"]
    levels: Int[np.ndarray, "problem"]


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


Measure = Callable[[Mapping[str, ArmRun]], Effect]


def per_problem(evaluation: Evaluation, name: str) -> Float[np.ndarray, "problem"]:
    """An accuracy by its name, or the mean over samples of one of the evaluation's measures.

    Raises InputError where it has neither, as cons_at_16 of another number of samples.
    """
    values = evaluation.accuracies()
    if name not in values and name not in evaluation.measures:
        raise InputError(f"This evaluation has no {name}; it has {', '.join(values)}.")
    return values[name] if name in values else evaluation[name].mean(axis=1)


def change(before: Evaluation, after: Evaluation, name: str) -> Effect:
    """`after` minus `before`, on the problems of `before`."""
    values = per_problem(after.select(before.ids), name) - per_problem(before, name)
    return Effect(values, before.levels)


def gain(arm: str, name: str = "pass_at_1") -> Measure:
    """What training changed in an arm."""
    return lambda runs: change(runs[arm].base, runs[arm].final, name)


def top_level_gain(arm: str) -> Measure:
    """The change in pass@1 on the hardest level alone."""

    def measure(runs: Mapping[str, ArmRun]) -> Effect:
        values, levels = gain(arm)(runs)
        return Effect(values[levels == levels.max()], levels[levels == levels.max()])

    return measure


def gain_over(arm: str, control: str, name: str = "pass_at_1", share: float = 1.0) -> Measure:
    """`share` of what training changed in `arm`, minus what it changed in `control`."""

    def measure(runs: Mapping[str, ArmRun]) -> Effect:
        ids = runs[arm].base.ids
        own = change(runs[arm].base, runs[arm].final, name)
        other = change(runs[control].base.select(ids), runs[control].final, name)
        return Effect(share * own.values - other.values, own.levels)

    return measure


def gain_beyond(arm: str, name: str, other: str) -> Measure:
    """How much more training changed one measure than another, in the same arm."""

    def measure(runs: Mapping[str, ArmRun]) -> Effect:
        values, levels = gain(arm, name)(runs)
        return Effect(values - gain(arm, other)(runs).values, levels)

    return measure


def vote_gain_halfway(arm: str) -> Measure:
    """cons@16 minus pass@1 at the evaluation nearest to half of the steps, the earlier of two."""

    def measure(runs: Mapping[str, ArmRun]) -> Effect:
        curve, half = runs[arm].curve, runs[arm].summary["steps"] / 2
        halfway = curve[min(curve, key=lambda step: abs(step - half))]
        gap = per_problem(halfway, "cons_at_16") - per_problem(halfway, "pass_at_1")
        return Effect(gap, halfway.levels)

    return measure


def end_against_best(arm: str) -> Measure:
    """pass@1 at the end minus pass@1 at the best point of the curve, on the curve's problems."""

    def measure(runs: Mapping[str, ArmRun]) -> Effect:
        run = runs[arm]
        ids = next(iter(run.curve.values())).ids
        points = [run.base.select(ids), *run.curve.values(), run.final.select(ids)]
        means = [macro_mean(per_problem(point, "pass_at_1"), point.levels) for point in points]
        return change(points[int(np.argmax(means))], run.final, "pass_at_1")

    return measure
