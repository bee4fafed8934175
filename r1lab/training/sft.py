"""Supervised fine-tuning on a stored data set: loss on the completions only (v2 B.4.2)."""

import json
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

from r1lab.evaluation.rows import read_rows
from r1lab.models.policy import load_model
from r1lab.training.checkpoint import checkpoint_path, list_checkpoints
from r1lab.training.compute import training_flops
from r1lab.training.demonstrations import fitting, load_documents
from r1lab.training.distributed import (
    StopRequest,
    default_processes,
    fingerprint,
    join_world,
)
from r1lab.training.estimate import check_machine
from r1lab.training.record import peak_memory_gb
from r1lab.training.run import STOPPED, launch, prepare_folder
from r1lab.training.runs import MetricsLog, command, commit, machine, write_atomically
from r1lab.training.supervised import SupervisedConfig, train_supervised

LAST_STEPS = 10  # whose mean loss is the run's


@dataclass(frozen=True)
class SFTConfig(SupervisedConfig):
    """How a model is fine-tuned. From the paper (v2 B.4.2): 2 to 3 epochs, and a cosine that ends
    at a tenth of the learning rate. The rate itself (there 5e-5) and the batch (128 rows) are ours:
    a model of 0.6 million weights bears more of the one and sees shorter rows in the other.

    Attributes:
        steps: at most so many; 0: as many as the epochs have.
        template: that the questions are put into, see `sources.templates`.
    """

    steps: int = 0
    epochs: int = 3
    tokens_per_step: int = 8_192
    learning_rate: float = 1e-3
    final_share: float = 0.1
    warmup_steps: int = 5
    weight_decay: float = 0.0
    learn_prompts: bool = False
    checkpoint_every: int = 25
    template: str = "small"


@dataclass(frozen=True)
class SFTRun(SFTConfig):
    """What a run of `r1lab sft` stores as its settings: how, and which model on which data."""

    model: str = ""
    data: str = ""


def run_sft(
    config: SFTConfig, model: str | Path, data: str | Path, run: Path, *,
    resume: bool = False, overwrite: bool = False,
) -> Path:  # fmt: skip
    """Fine-tune a model's folder on a data set's folder, in the folder `run`; return that.

    Raises:
        InputError: model or data are missing or do not fit each other; nothing is lost.
        KeyboardInterrupt: the user stopped it; the same call with `resume` goes on.
    """
    check_machine(config, str(model))
    load_documents(data, load_model(model)[1], config.template)
    settings = SFTRun(**vars(config), model=str(model), data=str(data))
    prepare_folder(run, settings, resume, overwrite)
    if not (run / "summary.json").exists():
        launch(sft_worker, config.processes or default_processes(), config, model, data, run)
    return run


def sft_worker(config: SFTConfig, model: str | Path, data: str | Path, run: Path) -> int:
    """One process of `run_sft`. Its exit code: 0, or 130 when the user stopped it."""
    return fine_tune(config, model, data, run, {}, StopRequest().listen(), time.monotonic())


def fine_tune(
    config: SFTConfig, model: str | Path, data: str | Path, run: Path, about: dict,
    stop: StopRequest, started: float, spent: float = 0.0,
) -> int:  # fmt: skip
    """Fine-tune in this process' world and write `summary.json`. Its exit code.

    Args:
        about: what the summary says besides.
        started: when this command began (`time.monotonic`), for `wall_seconds`.
        spent: seconds of work that earlier commands did before the fine-tuning.
    """
    world = join_world()
    loaded, tokenizer = load_model(model)
    rows = load_documents(data, tokenizer, config.template)
    documents = fitting(rows, loaded.config.max_position_embeddings, data)
    world.agree("rows of the data set", [hash((*p, -1, *c)) for p, c in documents])
    world.agree("starting weights", fingerprint(loaded))
    batches = make_batches(config, [len(p) + len(c) for p, c in documents])
    config = replace(config, steps=len(batches))
    log, earlier = run / "metrics.jsonl", 0.0
    if world.is_main:
        saved = list_checkpoints(run)
        metrics = MetricsLog(log, int(saved[-1].name.removeprefix("step-")) if saved else None)
        earlier = sum(row["seconds"] for row in read_rows(log)) if log.exists() else 0.0
    finished = train_supervised(
        config, run, loaded, tokenizer,
        lambda step: [documents[i] for i in batches[step]], stop,
        metrics.write if world.is_main else None,
    )  # fmt: skip
    if not finished:
        return STOPPED
    memory = sum(world.gather(peak_memory_gb()))
    if world.is_main:
        steps = read_rows(log)
        tokens = sum(row["tokens"] for row in steps)
        last = [row["loss"] for row in steps[-LAST_STEPS:]]
        summary = {
            "name": run.name,
            "seed": config.seed,
            "steps": config.steps,
            "epochs": config.epochs,
            "examples": len(documents),
            "overlong": len(rows) - len(documents),
            "tokens": tokens,
            "flops": training_flops(loaded.num_parameters(), tokens),
            "loss": sum(last) / len(last),
            "wall_seconds": round(time.monotonic() - started + spent + earlier, 1),
            "train_seconds": round(sum(row["seconds"] for row in steps), 1),
            "peak_memory_gb": round(memory, 2),
            "checkpoint": str(checkpoint_path(run, config.steps)),
            "base": str(model),
            **about,
            "command": command(),
            "commit": commit(),
            "machine": machine(),
        }
        write_atomically(run / "summary.json", json.dumps(summary, indent=1))
    return 0


def make_batches(config: SFTConfig, lengths: list[int]) -> list[list[int]]:
    """The rows of each step: each epoch in an order of its own, cut where a step's tokens are full.
    """
    batches: list[list[int]] = []
    for epoch in range(config.epochs):
        order = list(range(len(lengths)))
        random.Random(f"{config.seed}/{epoch}").shuffle(order)
        tokens = config.tokens_per_step  # full, so that each epoch begins a batch
        for row in order:
            if tokens + lengths[row] > config.tokens_per_step:
                batches.append([])
                tokens = 0
            batches[-1].append(row)
            tokens += lengths[row]
    return batches[: config.steps or None]
