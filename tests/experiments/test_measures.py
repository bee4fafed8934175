"""How effects are measured: problem by problem, families and levels alike, rollouts in blocks."""

from pathlib import Path

import numpy as np
import pytest

from r1lab.errors import InputError
from r1lab.evaluation.estimators import bootstrap_ci, macro_mean
from r1lab.report.pages import mean_accuracy, measured
from r1lab.stages.benchmarks import REASONING
from tests.experiments import measures, runner
from tests.experiments.chain import levels_of
from tests.experiments.fake_ledger import (
    BASE,
    LEARNED,
    LEVELS,
    K,
    evaluation,
    laboratory,  # a fixture
    write_entropies,
)
from tests.experiments.measures import ArmRun, StoredRun


def of_rows(rows, values) -> StoredRun:
    """A chain of which one stage was measured, with the levels that its rows really have."""
    kept = {f"dev1/{row}": values[row] for row in rows}
    return StoredRun({}, kept | {f"levels/{row}": levels_of(row) for row in rows})


@pytest.mark.parametrize("missing", [(), ("programs",), ("signs", "logic")])
def test_reasoning_accuracy_means_what_the_report_means_by_it(laboratory, monkeypatch, missing):
    """Each family counts the same, however many levels it has; a family without values does not."""
    monkeypatch.chdir(Path(__file__).parents[2])
    rng = np.random.default_rng(len(missing))
    values = {row: rng.random(len(levels_of(row))) ** (place + 1)
              for place, row in enumerate(REASONING)}  # fmt: skip
    for row in missing:
        values[row][:] = np.nan
    values["sums"][:3] = np.nan  # problems that alone have no value
    cells = {}
    for row in REASONING:
        seen, strata = np.isfinite(values[row]), levels_of(row)
        mean = macro_mean(values[row][seen], strata[seen]) if seen.any() else None
        cells[row] = {"value": mean}
    effect = measures.stored("chain/dev1", *REASONING)({"chain": of_rows(REASONING, values)})
    ours = macro_mean(*runner._over_seeds(effect.values[None], effect.levels))
    told = {"benchmarks": cells}
    assert ours == pytest.approx(mean_accuracy(told, measured({"dev1": told})), abs=1e-12)
    seen = np.isfinite(effect.values)
    pooled = macro_mean(effect.values[seen], effect.levels[seen])
    assert pooled != pytest.approx(ours, abs=1e-3)  # what all levels alike would give


def test_values_of_one_row_stay_as_they_are_to_the_last_bit():
    values, levels = np.random.default_rng(0).random(60), np.repeat([2, 3, 7], 20)
    assert np.array_equal(measures.evenly(values, levels), values)


def test_rollouts_that_are_near_are_resampled_together():
    """Values that go on as they were: one by one they would tell more than they know."""
    values = np.repeat([0.1, 0.5, 0.3, 0.9], 3)
    effect = measures.Effect(values, np.ones(12, dtype=int), [f"r{n}" for n in range(12)])
    found = measures.blocks(lambda runs: effect, 3)({})
    assert np.allclose(found.values, [0.1, 0.5, 0.3, 0.9]) and found.ids == ["r0", "r3", "r6", "r9"]
    alone, together = (bootstrap_ci(one.values, one.levels) for one in (effect, found))
    assert together.mean == pytest.approx(alone.mean)
    assert together.high - together.low > 1.4 * (alone.high - alone.low)
    odd = measures.blocks(lambda runs: effect, 5)({})
    assert len(odd.values) == 3 and odd.values[-1] == pytest.approx(0.9)


def test_measures_compare_the_same_problems_whatever_their_order(tmp_path):
    rng = np.random.default_rng(0)
    for arm in ("one", "other"):
        (tmp_path / arm).mkdir()
        before, after = evaluation(**BASE, rng=rng), evaluation(**LEARNED, rng=rng)
        before.save(tmp_path / arm / "eval_base.npz")
        measures.select(after, after.ids[::-1]).save(tmp_path / arm / "eval_final.npz")
        expected = after["correct"].mean(axis=1) - before["correct"].mean(axis=1)
        found = measures.gain(arm)({arm: ArmRun(tmp_path / arm)})
        assert np.allclose(found.values, expected)
    runs = {arm: ArmRun(tmp_path / arm) for arm in ("one", "other")}
    parts = [measures.gain(arm) for arm in ("one", "other")]
    found = measures.difference(*parts, share=0.5)(runs).values
    assert np.allclose(found, 0.5 * parts[0](runs).values - parts[1](runs).values)
    top = measures.top_level(parts[0])(runs)
    assert np.array_equal(top.values, parts[0](runs).values[LEVELS == 3])
    assert top.ids == [f"p{place}" for place in range(40, 60)]


def test_arms_of_different_problems_are_not_compared(tmp_path):
    effect = measures.Effect(np.zeros(1), np.ones(1, dtype=int), ["p1"])
    compare = measures.difference(lambda runs: effect, lambda runs: effect._replace(ids=["p2"]))
    with pytest.raises(InputError, match="different problems"):
        compare({})


def test_the_end_is_compared_with_the_best_point(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "evals").mkdir()
    evaluation(**BASE, rng=rng).save(tmp_path / "eval_base.npz")
    evaluation(accuracy=(1, 1, 1), rng=rng).save(tmp_path / "evals/step-000040.npz")
    evaluation(accuracy=(1, 1, 0), rng=rng).save(tmp_path / "eval_final.npz")
    effect = measures.end_against_best("true")({"true": ArmRun(tmp_path)})
    assert np.array_equal(effect.values, np.where(LEVELS == 3, -1, 0))


def test_wrong_answers_are_compared_where_both_arms_have_some(tmp_path):
    def arm(name, right, tokens):
        (tmp_path / name).mkdir()
        one = evaluation(**BASE, rng=np.random.default_rng(0))
        one.measures.update(correct=right, tokens=tokens)
        one.save(tmp_path / name / "eval_final.npz")
        return ArmRun(tmp_path / name)

    shape = len(LEVELS), K
    right = np.zeros(shape, dtype=int)
    right[0] = 1  # no wrong answer to the first problem
    right[1, 0] = 1
    tokens = np.full(shape, 50)
    tokens[1, 0] = 999  # a right answer has no say
    runs = {"long": arm("long", right, tokens), "short": arm("short", right * 0, tokens * 0 + 20)}
    effect = measures.wrong_length("long", "short")(runs)
    assert effect.values.tolist() == [0.0] + [30.0] * (len(LEVELS) - 1)


def test_entropy_is_that_of_the_later_rollouts(tmp_path):
    write_entropies(tmp_path, [0.5, 0.4, 0.3, 0.2])
    effect = measures.late_entropy("true")({"true": ArmRun(tmp_path)})
    assert effect.values.tolist() == [0.3, 0.2] and effect.ids == ["step 12", "step 16"]


def test_the_hardest_level_is_compared_with_so_many_times_the_easiest():
    values = {"r1/tokens": np.array([10.0, 30.0, 500.0, 70.0, 110.0]),
              "levels/tokens": np.array([2, 2, 3, 5, 5])}  # fmt: skip
    measure = measures.hardest_against_easiest(measures.stored("ask/r1", "tokens"), 3.0)
    effect = measure({"ask": StoredRun({}, values)})
    assert effect.levels.tolist() == [2, 2, 5, 5]
    assert macro_mean(effect.values, effect.levels) == 90 - 3 * 20


def test_a_group_is_idle_when_all_its_samples_are_right():
    one = evaluation(accuracy=(1, 0.5, 0), rng=np.random.default_rng(0))
    assert np.array_equal(measures.per_problem(one, "all_right"), LEVELS == 1)


def test_a_run_without_what_a_measure_needs_is_told(tmp_path):
    with pytest.raises(InputError, match="evals/step"):
        measures.end_against_best("true")({"true": ArmRun(tmp_path)})
    with pytest.raises(InputError, match="cons_at_64"):
        measures.per_problem(evaluation(**BASE, rng=np.random.default_rng(0)), "cons_at_64")
