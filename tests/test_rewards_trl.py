"""r1lab's rewards train in TRL's own trainer as they are: two steps on the shipped base."""

from random import Random
from pathlib import Path

import pytest
from datasets import Dataset

from r1lab.models.policy import load_model
from r1lab.rewards import accuracy, format, language, random
from r1lab.sources.templates import apply_template
from r1lab.world import sample_problem

trl = pytest.importorskip("trl", reason="TRL is a test dependency: pip install -e .[test]")
ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("solution", "family", "level", "lang", "meta")


def test_the_rewards_drop_into_trls_trainer(tmp_path):
    rng = Random(0)
    problems = [sample_problem(rng, "signs", level, lang) for level in (1, 2) for lang in ("en", "zh")] * 2
    model, tokenizer = load_model(ROOT / "data" / "base")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = trl.GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=[accuracy, format, language, random],
        args=trl.GRPOConfig(
            output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=8, num_generations=8,
            max_completion_length=96, learning_rate=1e-3, logging_steps=1, report_to=[], use_cpu=True,
            save_strategy="no", seed=0, bf16=False, gradient_checkpointing=False, beta=0.0,
        ),
        train_dataset=Dataset.from_list([
            {"prompt": apply_template("small", problem.prompt),
             **{name: getattr(problem, name) for name in COLUMNS}} for problem in problems
        ]),
    )  # fmt: skip
    trainer.train()
    steps = [row for row in trainer.state.log_history if "rewards/accuracy/mean" in row]
    assert len(steps) == 2
    for row in steps:
        for name in ("accuracy", "format", "language", "random"):
            assert 0 <= row[f"rewards/{name}/mean"] <= 1
    assert max(row["rewards/format/mean"] for row in steps) > 0.2  # the base's habit, seen
    assert max(row["rewards/accuracy/mean"] for row in steps) > 0
    moved = max(
        (now.detach() - then).abs().max().item()
        for now, then in zip(trainer.model.parameters(), before, strict=True)
    )
    assert moved > 0
