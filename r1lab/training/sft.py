"""Supervised fine-tuning on a stored data set: loss on the completions only (v2 B.4.2)."""

import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

from r1lab.models.policy import load_model, load_tokenizer
from r1lab.training.checkpoint import checkpoint_path
from r1lab.training.config import TRAINING_FLOPS
from r1lab.training.distributed import World, fingerprint
from r1lab.training.documents import fitting, load_documents
from r1lab.training.estimate import check_machine
from r1lab.training.processes import StopRequest, compute, default_processes
from r1lab.training.provenance import command, commit, machine, peak_memory_gb
from r1lab.run import Run
from r1lab.training.supervised import Document, SupervisedConfig, train_supervised

LAST_STEPS = 10  # whose mean loss is the run's


@dataclass(frozen=True)
class SFTConfig(SupervisedConfig):
    """How a model is fine-tuned. From the paper (v2 B.4.2): 2 to 3 epochs, and a cosine that ends
    at a tenth of the learning rate. The rate itself (there 5e-5) and the batch (128 rows) are ours:
    a model of 0.6 million weights bears more of the one and sees shorter rows in the other.

    Attributes:
        steps: at most this many; 0: as many as the epochs have.
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


def sft(
    model: str | Path, data: str | Path, config: SFTConfig | None = None, name: str = "sft", *,
    runs: str | Path = "runs", resume: bool = True, overwrite: bool = False,
) -> Run:  # fmt: skip
    """Fine-tune a model on a data set's folder, in `runs/name`; returns the run.

    The same call goes on where a stopped run has its last checkpoint, and gives back a finished one.

    Args:
        resume: False refuses a run that is finished.
        overwrite: delete an earlier run of this name first.
    Raises:
        InputError: model or data are missing or do not fit each other; nothing is lost.
        KeyboardInterrupt: the user stopped it; the same call goes on.
    """
    config = config or SFTConfig()
    check_machine(config, str(model))
    load_documents(data, load_tokenizer(model), config.template)
    run = Run(Path(runs) / name)
    return compute(
        run, config, sft_work, config.processes or default_processes(), config, str(model), str(data),
        about={"model": str(model), "data": str(data)}, resume=resume,
        overwrite=overwrite, parallel=config.parallel,
    )  # fmt: skip


def sft_work(
    world: World, stop: StopRequest, run: Run, config: SFTConfig, model: str, data: str
) -> bool:
    """One process's share of `sft`. False: stopped on the way."""
    return fine_tune(world, stop, run, config, model, data, {}, time.monotonic())


def fine_tune(
    world: World, stop: StopRequest, run: Run, config: SFTConfig, model: str | Path,
    data: str | Path, about: dict, started: float, spent: float = 0.0,
) -> bool:  # fmt: skip
    """Fine-tune in this process's world and write `summary.json`. False: stopped on the way.

    Args:
        about: what the summary says besides.
        started: when this command started (`time.monotonic`), for `wall_seconds`.
        spent: seconds of work that earlier commands did before the fine-tuning.
    """
    loaded, tokenizer = load_model(model)
    rows = load_documents(data, tokenizer, config.template)
    documents = fitting(rows, loaded.config.max_position_embeddings, data)
    world.agree("rows of the data set", [hash((*p, -1, *c)) for p, c in documents])
    world.agree("starting weights", fingerprint(loaded))
    batches = make_batches(config, [len(p) + len(c) for p, c in documents])
    config = replace(config, steps=len(batches))
    earlier = sum(row["seconds"] for row in run.metrics)

    def of_step(step: int) -> list[Document]:
        return [documents[row] for row in batches[step]]

    if not train_supervised(world, stop, run, config, loaded, tokenizer, of_step):
        return False
    memory = sum(world.gather(peak_memory_gb()))
    if world.is_main:
        steps = run.metrics
        tokens = sum(row["tokens"] for row in steps)
        last = [row["loss"] for row in steps[-LAST_STEPS:]]
        run.write("summary.json", {
            "name": run.name,
            "seed": config.seed,
            "steps": config.steps,
            "epochs": config.epochs,
            "examples": len(documents),
            "overlong": len(rows) - len(documents),
            "tokens": tokens,
            "flops": TRAINING_FLOPS * loaded.num_parameters() * tokens,
            "loss": sum(last) / len(last),
            "wall_seconds": round(time.monotonic() - started + spent + earlier, 1),
            "train_seconds": round(sum(row["seconds"] for row in steps), 1),
            "peak_memory_gb": round(memory, 2),
            "checkpoint": str(checkpoint_path(run.folder, config.steps)),
            "base": str(model),
            **about,
            "command": command(),
            "commit": commit(),
            "machine": machine(),
        })  # fmt: skip
    return True


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
