"""RL on a real model that speaks English, after a cold start: lesson 13's experiment.

SmolLM2-135M has first learned to write attempts (`data/english`, a LoRA adapter: `cold_start` below).
Three arms start from there. One is paid for right answers, one by a coin, and one goes on with
fine-tuning on new examples until it has cost as much as RL. The ledger runs it for each seed
(`python -m tests.experiments --only english`).
"""

import json
import math
import runpy
import shutil
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import r1lab
from r1lab import GRPOConfig, SFTConfig
from r1lab.evaluation.measure import Evaluation
from r1lab.files import write_text
from r1lab.models.lora import LoRA
from r1lab.models.policy import load_model, load_tokenizer
from r1lab.run import Run
from r1lab.sources import load_task
from r1lab.training.config import ADAPTER_FLOPS
from r1lab.training.sft import load_documents
from tests.experiments.next_steps import Kept, Trial, start, tabulate

PUZZLES = "notebooks/english_puzzles.py"
ROWS = ("accuracy", "hardest", "tokens")
HARDEST = 3  # the level with four numbers
ADAPTER = {"rank": 8, "alpha": 16}
COLD_START = {
    "epochs": 1, "tokens_per_step": 3_072, "learning_rate": 1e-3, "warmup_steps": 10,
    "microbatch_tokens": 2_048, "template": "chat", "precision": "auto", "processes": 1,
    "checkpoint_every": 20,
}  # fmt: skip
RL = {
    "rollouts": 6, "questions": 8, "group_size": 8, "minibatches": 2, "learning_rate": 3e-4,
    "warmup_steps": 4, "caps": [[0, 400]], "microbatch_tokens": 4_096, "eval_every": 6,
    "final_samples": 2, "checkpoint_every": 1, "share_prompts": True, "precision": "auto",
    "processes": 1, "loss": {"beta": 0.0, "clip_low": 0.2, "clip_high": 0.28, "aggregation": "token"},
}  # fmt: skip


@dataclass(frozen=True)
class English(Trial):
    """What the arms have in common. `base`: where the cold start's adapter is."""

    base: str = "data/english"
    learning: dict[str, Any] = field(default_factory=lambda: RL)
    tuning: dict[str, Any] = field(default_factory=lambda: COLD_START)
    adapter: dict[str, Any] = field(default_factory=lambda: ADAPTER)


def rl_config(config: English) -> GRPOConfig:
    """The package's settings of the two arms that learn from rewards."""
    changes = dict(config.learning)
    changes["caps"] = tuple(map(tuple, changes["caps"]))
    changes["loss"] = replace(GRPOConfig().loss, **changes["loss"])
    return GRPOConfig(**changes, lora=LoRA(**config.adapter), seed=config.seed)


def sft_config(config: English, **changes: Any) -> SFTConfig:
    """The package's settings of the cold start, and of going on with it."""
    return SFTConfig(**config.tuning, lora=LoRA(**config.adapter), seed=config.seed, **changes)


@cache
def writers() -> dict[str, Any]:
    """What the lesson's file of puzzles defines, among it `cold_start`."""
    return runpy.run_path(PUZZLES)


def write_examples(file: Path, count: int, seed: int) -> Path:
    """So many written answers to new puzzles, as a .jsonl file."""
    rows = writers()["cold_start"](count, seed)
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    return file


def cold_start(model: str = "smollm2", examples: int = 2_400, folder: Path = Path("runs/english")) -> Run:
    """Teach the model to write attempts: fine-tuning on written answers, as an adapter."""
    data = write_examples(folder / "cold_start.jsonl", examples, seed=0)
    return r1lab.sft(model, data, sft_config(English()), "cold_start", runs=folder)


def english(config: English = English(), folder: Path = Path("runs/english/arms")) -> Kept:
    """Train and measure the arms; each row of the table is against the cold start.

    The row "entropy" is RL's in the second half of its rollouts, as a share of that in the first.
    """
    load_model(config.base)  # a missing one is reported before the folder is made
    start(config, folder)
    task, rl = load_task(f"{PUZZLES}:task"), rl_config(config)
    coin = replace(task, rewards={"random": r1lab.rewards.random})
    runs = {"rl": r1lab.grpo(config.base, task, rl, "rl", runs=folder)}
    asked = folder / "random" / "eval_base.npz"  # the same questions and samples: asked once
    asked.parent.mkdir(exist_ok=True)
    shutil.copy(runs["rl"].folder / "eval_base.npz", asked)
    runs["random"] = r1lab.grpo(config.base, coin, rl, "random", runs=folder)
    found = {name: Evaluation.load(run.folder / "eval_final.npz") for name, run in runs.items()}
    found["cold_start"] = Evaluation.load(runs["rl"].folder / "eval_base.npz")
    found["sft"] = tuned(config, folder, runs["rl"].summary["flops"])
    measured = {arm: row_values(evaluation) for arm, evaluation in found.items()}
    levels = found["rl"].levels
    hardest = levels[levels == HARDEST]
    kept = tabulate(measured, "cold_start", {"accuracy": levels, "hardest": hardest, "tokens": levels}, folder)
    entropy = np.array([row["entropy"] for row in runs["rl"].metrics if row["kind"] == "train"])
    late = entropy[len(entropy) // 2 :]
    return kept | {"rl/entropy": late / entropy[0], "levels/entropy": np.zeros(len(late), int)}


def tuned(config: English, folder: Path, flops: float) -> Evaluation:
    """Go on with fine-tuning on new examples until it has cost so many FLOPs; evaluate it."""
    file = folder / "sft.npz"
    if file.exists():
        return Evaluation.load(file)
    model, _ = load_model(config.base)
    tokens = flops / (ADAPTER_FLOPS * model.num_parameters())
    data = write_examples(folder / "sft.jsonl", 64, config.seed + 1)
    documents = load_documents(data, load_tokenizer(config.base), config.tuning["template"])
    mean = sum(len(asked) + len(answer) for asked, answer in documents) / len(documents)
    write_examples(data, math.ceil(1.1 * tokens / mean), config.seed + 1)
    steps = math.ceil(tokens / config.tuning["tokens_per_step"])
    run = r1lab.sft(config.base, data, sft_config(config, steps=steps), "sft", runs=folder)
    rl = rl_config(config)
    evaluation = r1lab.evaluate(
        run.model, load_task(f"{PUZZLES}:task"), rl.final_samples, max_tokens=rl.cap(rl.steps),
        seed=config.seed, processes=rl.processes,
    )  # fmt: skip
    evaluation.save(file)
    return evaluation


def row_values(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """One value for each problem of each row of the table: pass@1 (lenient) and tokens."""
    right = evaluation["correct"].mean(axis=1)
    return {
        "accuracy": right,
        "hardest": right[evaluation.levels == HARDEST],
        "tokens": evaluation["tokens"].mean(axis=1),
    }
