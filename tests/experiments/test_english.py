"""Lesson 13's arms on a tiny random model, from its cold start to the ledger's values."""

from dataclasses import replace

import numpy as np
import pytest
from tests.test_chat_templates import made

from r1lab.errors import InputError
from r1lab.models.policy import save_model
from r1lab.run import Run
from r1lab.world.bases import build_model
from tests.experiments import english

LEARNING = english.RL | {
    "rollouts": 1, "questions": 2, "group_size": 2, "minibatches": 1, "caps": [[0, 4]],
    "final_samples": 1, "precision": "float32",
}  # fmt: skip
TUNING = english.COLD_START | {"tokens_per_step": 2_000, "precision": "float32"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A model with a chat template and no idea of English."""
    folder, tokenizer = tmp_path_factory.mktemp("model"), made("qwen")
    small = build_model("tiny", len(tokenizer))
    save_model(small, tokenizer, folder)
    return str(folder)


def test_three_arms_start_from_one_cold_start(model, tmp_path, monkeypatch):
    monkeypatch.setattr(english, "COLD_START", TUNING)
    cold = english.cold_start(model, examples=8, folder=tmp_path)
    assert (cold.model / "adapter_config.json").is_file()
    config = english.English(base=str(cold.model), learning=LEARNING, tuning=TUNING)
    kept = english.english(config, tmp_path / "arms")
    assert {name.partition("/")[0] for name in kept} == {"rl", "random", "cold_start", "sft", "levels"}
    assert len(kept["rl/accuracy"]) == 72 and len(kept["rl/hardest"]) == len(kept["levels/hardest"]) == 24
    assert len(kept["rl/entropy"]) == len(kept["levels/entropy"]) == 1
    assert np.isfinite(kept["sft/tokens"]).all() and kept["rl/tokens"].max() <= 4
    rl, sft = Run(tmp_path / "arms" / "rl").summary, Run(tmp_path / "arms" / "sft").summary
    assert sft["flops"] >= rl["flops"]
    assert english.english(config, tmp_path / "arms").keys() == kept.keys()  # nothing runs twice
    with pytest.raises(InputError, match="other settings .seed."):
        english.english(replace(config, seed=1), tmp_path / "arms")
