"""Lesson 08's arms on a tiny random student and teacher, from R1's samples to the ledger's values."""

from dataclasses import replace

import numpy as np
import pytest

from r1lab.errors import InputError
from r1lab.run import Run
from r1lab.task import load_problems, save_problems
from tests.experiments import distil as arms
from tests.experiments.distil import ON_POLICY, RL, SAMPLING, Distil, distil
from tests.experiments.settings import SFT
from tests.small_run import tiny_model

QUICK = {"questions": 2, "group_size": 2, "minibatches": 1}


def test_all_arms_cost_no_less_than_sft_and_start_where_they_should(tmp_path, alone, monkeypatch):
    student, teacher = tiny_model(tmp_path / "student"), tiny_model(tmp_path / "teacher")
    save_problems(load_problems("data/test_signs.jsonl")[127:130], tmp_path / "test.jsonl")
    monkeypatch.setattr(arms, "TRIES", (1, 2))
    config = Distil(
        base=student, teacher=teacher, processes=1, problems=1, levels=(2, 3), seed=3,
        rl=RL | QUICK | {"caps": [[0, 4]], "final_samples": 2, "test": str(tmp_path / "test.jsonl")},
        on_policy=ON_POLICY | QUICK, sft=SFT | {"epochs": 1, "tokens_per_step": 2_048},
        sampling=SAMPLING | {"filters": [], "questions": 2, "samples": 2, "max_tokens": 8},
    )  # fmt: skip
    values = distil(config, tmp_path / "arms")
    names = {"student", "sft", "rl", "on_policy", "sft_rl", "sft_on_policy", "levels"}
    assert {name.partition("/")[0] for name in values} == names
    assert values["levels/pass_at_1"].tolist() == [2, 3]
    runs = {name: Run(tmp_path / "arms" / name) for name in ("sft", "rl", "on_policy", "sft_rl", "sft_on_policy")}
    limit = runs["sft"].summary["flops"]
    for arm in set(runs) - {"sft"}:
        assert runs[arm].config["flops_limit"] == limit <= runs[arm].summary["flops"]
        assert runs[arm].config["model"] == str(runs["sft"].model if "sft" in arm else student)
    assert runs["on_policy"].config["loss"]["beta"] == 0 < runs["rl"].config["loss"]["beta"]
    assert np.array_equal(distil(config, tmp_path / "arms")["rl/pass_at_1"], values["rl/pass_at_1"])
    with pytest.raises(InputError, match="other settings .seed."):
        distil(replace(config, seed=4), tmp_path / "arms")
