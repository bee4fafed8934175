"""What cold start, rejection sampling and distillation share: sample one model, teach another.

The samples go through filters, become examples, and are stored as a data set with its provenance;
then a base is fine-tuned on it. Each part is found again when a stopped stage goes on.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from r1lab.errors import InputError
from r1lab.files import whole
from r1lab.models.places import local_model
from r1lab.models.policy import load_policy
from r1lab.rewards import shared_sandbox
from r1lab.sampling import TorchSampler
from r1lab.stages.harvest import HarvestConfig, harvest, read_harvest, select
from r1lab.task import Problem, Task
from r1lab.training.config import SAMPLING_FLOPS
from r1lab.training.distributed import World
from r1lab.training.processes import StopRequest, compute, default_processes
from r1lab.training.provenance import commit
from r1lab.training.rl import described
from r1lab.run import Run
from r1lab.training.sft import SFTConfig, fine_tune

FOR_ANY_TASK = ("not truncated", "readable", "format", "correct")  # filters
COLUMNS = ("id", "family", "level", "lang", "prompt", "completion")
Example = tuple[Problem, str]  # with its completion


@dataclass(frozen=True)
class SampledStage:
    """A stage that fine-tunes `base` on samples of `source`.

    Attributes:
        source, base: folders of models, or of runs (their last checkpoint is meant).
        processes: 0 for one per core.
    """

    source: str
    base: str
    sampling: HarvestConfig
    sft: SFTConfig
    processes: int = 0

    def examples(self, kept: list[Example], rng: random.Random) -> list[Example]:
        """What is learned from the samples that were kept: here, just these."""
        return kept


def run_sampled(
    config: SampledStage, name: str, *, runs: Path = Path("runs"), resume: bool = True,
    overwrite: bool = False, task: Task | None = None,
) -> Run:  # fmt: skip
    """Go through the stage in `runs/name`, or go on there; returns the run.

    It holds the samples (`samples/`), the data set (`data/`), the fine-tuned model (`checkpoints/`)
    and `summary.json`.

    Args:
        task: asked in place of the small world; its samples are filtered, and not rewritten.
    Raises:
        InputError: a model is missing, or no sample is left after filtering; nothing is lost.
        KeyboardInterrupt: the user stopped it; the same call goes on.
    """
    for model in (config.source, config.base):
        model_folder(model, name)
    run = Run(runs / name)
    return compute(
        run, config, stage_work, config.processes or default_processes(), config, task,
        about={"task": described(task)} if task else {}, resume=resume,
        overwrite=overwrite,
    )  # fmt: skip


def model_folder(path: str, stage: str) -> Path:
    """The model that a stage starts from: a model's folder, or the last checkpoint of a run's.

    Raises:
        InputError: the stage before has left no model there.
    """
    found = local_model(path)
    if found is None:
        raise InputError(
            f"{stage} needs the model in {path}, and there is none; finish the stage that makes it "
            "first, or name another folder."
        )
    return found


def open_sampler(world: World, model: str | Path) -> tuple[TorchSampler, PreTrainedTokenizerBase]:
    """The torch sampler of a model, where this process computes, and the model's tokenizer."""
    policy, tokenizer = load_policy(model)
    return TorchSampler(world.place(policy).model, tokenizer), tokenizer


def stage_work(
    world: World, stop: StopRequest, run: Run, config: SampledStage, task: Task | None
) -> bool:
    """One process's share of the stage. False: stopped on the way."""
    started = time.monotonic()
    source, base = (model_folder(path, run.name) for path in (config.source, config.base))
    sampler, tokenizer = open_sampler(world, source)
    parameters = sampler.model.num_parameters()
    sampling, left_out = runnable(config.sampling)
    if task is not None:  # whose words and attempts nobody can read
        own = tuple(name for name in sampling.filters if name in FOR_ANY_TASK)
        sampling = replace(sampling, filters=own)
    samples, data = run.folder / "samples", run.folder / "data"
    before = read_harvest(samples)[1]
    asked = task or sampling.task()
    if not harvest(world, stop, sampling, asked, samples, sampler, tokenizer):
        return False
    del sampler  # its model makes room for the one that is trained
    if not world.any((data / "provenance.json").exists()) and world.is_main:
        examples = config.examples if task is None else lambda kept, rng: kept
        make_data(replace(config, sampling=sampling), run, examples, str(source), left_out, tokenizer)
    world.gather(None)  # nobody reads the data before they are written
    provenance = json.loads((data / "provenance.json").read_text(encoding="utf-8"))
    cost = SAMPLING_FLOPS * parameters * provenance["tokens"]
    about = {"data": provenance, "sampling_flops": cost}
    return fine_tune(world, stop, run, config.sft, base, data, about, started, before)


def runnable(config: HarvestConfig) -> tuple[HarvestConfig, str]:
    """Without the programs where there is no sandbox to run them in, and why they are left out."""
    programs = [kind for kind in config.mixture if kind.startswith("programs/")]
    if not programs:
        return config, ""
    try:
        shared_sandbox()
    except InputError as error:
        others = {kind: share for kind, share in config.mixture.items() if kind not in programs}
        return replace(config, mixture=others), str(error)
    return config, ""


def make_data(
    config: SampledStage, run: Run, make_examples: Callable, source: str, left_out: str, tokenizer
) -> None:
    """Filter the samples, make the examples, and store them."""
    rows, seconds = read_harvest(run.folder / "samples")
    try:
        kept, counts = select(config.sampling, rows)
    except InputError as error:
        raise InputError(
            f"{str(error).removesuffix('.')}; delete the folder {run.folder}, and give the same command "
            "with more samples (sampling.chunks) or a source that is further trained."
        ) from error
    fields = Problem.__dataclass_fields__
    samples = [(Problem(**{name: row[name] for name in fields}), row["completion"]) for row in kept]
    examples = make_examples(samples, random.Random(f"examples/{config.sampling.seed}"))
    # As the tokenizer writes it, with spaces where it puts them.
    as_read = [tokenizer.decode(tokenizer(text).input_ids) for _, text in examples]
    data = [
        {**{name: getattr(problem, name) for name in COLUMNS[:-1]}, "completion": text}
        for (problem, _), text in zip(examples, as_read, strict=True)
    ]
    about = {"programs_left_out": left_out, "sampling_seconds": round(seconds, 1)}
    store_data(data, run.folder / "data", config, source, **about, examples=len(data), **counts)


def store_data(rows: list[dict], folder: Path, config: object, source: str, **about) -> None:
    """A data set with its provenance, whole or not at all.

    Args:
        config: the settings of the stage that made it.
        source: the folder of what it was made from.
        about: what the provenance tells besides.
    """
    from datasets import Dataset, disable_progress_bars  # takes seconds to import

    disable_progress_bars()  # it takes no time
    provenance = {
        "source_run": source, "commit": commit(), "stage": type(config).__name__,
        "settings": asdict(config), **about,
    }  # fmt: skip
    text = json.dumps(provenance, indent=1, ensure_ascii=False)
    with whole(folder) as partial:
        Dataset.from_list(rows).save_to_disk(partial)
        (partial / "provenance.json").write_text(text + "\n", encoding="utf-8")
