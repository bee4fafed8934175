"""Supervised fine-tuning on a stored data set: loss on the completions only (v2 B.4.2)."""

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from r1lab.errors import InputError
from r1lab.models.lora import MaybeLoRA
from r1lab.models.policy import load_start, load_tokenizer, refuse_unknown_words
from r1lab.training.config import learning_flops, refuse_too_small
from r1lab.training.distributed import fingerprint, settled
from r1lab.training.estimate import check_machine
from r1lab.training.processes import compute, peak_memory_gb
from r1lab.files import read_rows
from r1lab.rewards import text_of
from r1lab.machine import provenance
from r1lab.run import Run
from r1lab.sources.rows import read_each, read_question
from r1lab.sources.templates import apply_template
from r1lab.training.supervised import Document, SupervisedConfig, train_supervised

LAST_STEPS = 10  # whose mean loss is the run's


@dataclass(frozen=True)
class SFTConfig(SupervisedConfig):
    """How a model is fine-tuned. From the paper (v2 B.4.2): 2 to 3 epochs, and a cosine that ends
    at a tenth of the learning rate. The rate itself (there 5e-5) and the batch (128 rows) are ours:
    a model of 0.6 million weights bears more of the one and sees shorter rows in the other.

    Attributes:
        steps: at most this many; 0: as many as the epochs have.
        lora: train an adapter in place of all weights; on the command line RANK, ALPHA, LAYERS.
        template: that the questions are put into, see `sources.templates`.
    """

    steps: int = 0
    epochs: int = 3
    tokens_per_step: int = 8_192
    learning_rate: float = 1e-3
    lora: MaybeLoRA = None
    final_share: float = 0.1
    warmup_steps: int = 5
    weight_decay: float = 0.0
    learn_prompts: bool = False
    checkpoint_every: int = 25
    template: str = "small"


def sft(
    model: str | Path, data: str | Path, config: SFTConfig = SFTConfig(), name: str = "sft", *,
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
    model, data = str(model), str(data)
    refuse_too_small(config)
    check_machine(config, model)
    config = settled(config)
    return compute(
        Run(Path(runs) / name), config, fine_tune, config.processes, config, model, data,
        about={
            "model": model, "data": data,
            "rows": row_hash(load_documents(data, load_tokenizer(model), config.template))
        },
        resume=resume, overwrite=overwrite,
    )  # fmt: skip


def row_hash(documents: list[Document]) -> int:
    """One number for all documents, the same in every process."""
    return hash(tuple(hash((*prompt, -1, *completion)) for prompt, completion in documents))


def fine_tune(
    world, stop, run: Run, config: SFTConfig, model: str | Path,
    data: str | Path, about: Mapping = {}, started: float | None = None,
) -> bool:  # fmt: skip
    """One process's share of fine-tuning, which ends with `summary.json`. False: stopped on the way.

    Args:
        about: what the summary says besides.
        started: when the work started (`time.monotonic`), for `wall_seconds`.
    """
    started = started or time.monotonic()
    loaded, tokenizer = load_start(model, config.lora, config.seed)
    rows = load_documents(data, tokenizer, config.template)
    documents = fitting(rows, getattr(loaded.config, "max_position_embeddings", 1 << 30), data)
    world.agree("rows of the data set", row_hash(documents))
    world.agree("starting weights", fingerprint(loaded))
    batches = make_batches(config, [len(p) + len(c) for p, c in documents])
    config = replace(config, steps=len(batches))
    earlier = sum(row["seconds"] for row in run.metrics)

    def of_step(step):
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
            "flops": learning_flops(config.lora) * loaded.num_parameters() * tokens,
            "loss": sum(last) / len(last),
            "wall_seconds": round(time.monotonic() - started + earlier, 1),
            "train_seconds": round(sum(row["seconds"] for row in steps), 1),
            "peak_memory_gb": round(memory, 2),
            "checkpoint": str(run.model),
            "base": str(model),
            **about,
            **provenance(),
        })  # fmt: skip
    return True


def load_documents(data: str | Path, tokenizer, template: str) -> list[Document]:
    """Read a data set: ids of each row's prompt, and of its completion with the end token.

    It is a folder in the format of `datasets` (of several splits `train` is read) or a .jsonl file,
    with the columns `prompt` (the bare question) and `completion`, as texts or messages, or with whole
    conversations in `messages`; what else it holds is provenance.

    Raises:
        InputError: there is no data set, it is empty, lacks a column or has a row that cannot be read,
            or it holds words that this tokenizer does not know.
    """

    def pair(row):
        question, reply = read_question(row["messages"] if "messages" in row else row["prompt"])
        return question, reply or text_of(row["completion"])

    hint = "; it needs a prompt and a completion, or messages that end with the assistant's"
    pairs = read_each(stored_rows(data), pair, str(data), hint)
    prompts = [apply_template(template, question, tokenizer) for question, _ in pairs]
    completions = [completion for _, completion in pairs]
    refuse_unknown_words([*prompts, *completions], tokenizer, f"the model that is to read {data}")
    asked = tokenizer(prompts).input_ids
    answers = tokenizer(completions, add_special_tokens=False).input_ids
    return [(ids, [*answer, tokenizer.eos_token_id]) for ids, answer in zip(asked, answers)]


def stored_rows(data: str | Path) -> Iterable[Mapping]:
    """Read the rows of a .jsonl file or of a folder that `datasets` has saved.

    Raises InputError where there are none, or they cannot be read."""
    if Path(data).suffix == ".jsonl":
        return read_rows(data, complete=True)
    from datasets import load_from_disk  # takes seconds to import

    try:
        rows = load_from_disk(str(data))
        if isinstance(rows, dict):  # of splits
            rows = rows["train"]
    except IndexError:  # what `datasets` 5 says of a stored set without rows
        rows = ()
    except Exception as error:  # a missing folder, a damaged file and a wrong format differ in kind
        raise InputError(
            f"{data}: no data set can be read there ({type(error).__name__}); give a folder that `datasets` "
            "has saved (`save_to_disk`), with its split train where it has several, or a .jsonl file."
        ) from error
    if len(rows) == 0:
        raise InputError(f"{data}: the data set holds no rows; there is nothing to learn from.")
    return rows


def fitting(documents: list[Document], longest: int, data: str | Path) -> list[Document]:
    """The documents that fit into the model's positions. Raises InputError where none does."""
    short = [one for one in documents if len(one[0]) + len(one[1]) <= longest]
    if not short:
        raise InputError(f"{data}: each row is longer than the model's {longest} positions.")
    return short


def make_batches(config: SFTConfig, lengths: list[int]) -> list[list[int]]:
    """The rows of each step: each epoch in an order of its own, cut where a step's tokens are full."""
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
