"""The arms of "how much cold start?", on a tiny sampled model."""

import numpy as np
import pytest

from r1lab.run import Run
from r1lab.task import load_problems
from tests.experiments.cold_starts import RL, SAMPLING, ColdStarts, cold_starts, languages

QUICK = {"questions": 2, "group_size": 2, "minibatches": 1, "rollouts": 1, "final_samples": 2}


def test_arms_differ_in_examples_and_in_the_language_reward_alone(tmp_path, alone):
    config = ColdStarts(
        seed=3, processes=1, problems=1, examples=(0, 2), rl=RL | QUICK | {"caps": [[0, 16]]},
        sampling=SAMPLING
        | {"questions": 6, "samples": 2, "chunks": 1, "max_tokens": 200, "filters": ["readable"]},
    )  # fmt: skip
    values = cold_starts(config, tmp_path)
    arms = {f"{stage}_{examples}" for stage in ("dev1", "dev2", "plain") for examples in ("0", "2", "all")}
    assert {name.partition("/")[0] for name in values} == arms | {"zero", "levels"}
    assert Run(tmp_path / "dev2_0").config["model"] == "data/base"
    assert Run(tmp_path / "dev1_2").summary["examples"] == 2 < Run(tmp_path / "all").summary["examples"]
    for examples in ("0", "2", "all"):
        paid, plain = (Run(tmp_path / f"{arm}_{examples}") for arm in ("dev2", "plain"))
        assert paid.config["model"] == plain.config["model"]
        weights = [run.config["task"]["settings"]["language_weight"] for run in (paid, plain)]
        assert weights == [1.0, 0.0]
    before = {name: value for name, value in values.items() if name.startswith("dev1_all/")}
    assert all(np.array_equal(cold_starts(config, tmp_path)[name], value, True) for name, value in before.items())


def test_language_is_counted_where_there_are_words():
    problem = load_problems("data/test_signs.jsonl")[0]
    own, other = ("no", "不") if problem.lang == "en" else ("不", "no")
    texts = ["<think> </think> 1", f"<think> {own} {own} {other} {other} </think>", f"<think> {own} </think>"]
    assert languages(problem, texts) == pytest.approx((0.75, 0.5))
    assert np.isnan(languages(problem, texts[:1])).all()
