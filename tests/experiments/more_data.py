"""Two next steps of the paper, on Dev3's data: a third language, and more programs.

R1 answers questions in other languages in English or Chinese, and has seen little RL on programs, for
which the authors think of rejection sampling (v1 section 5, v2 section 6). Here Dev3 of a finished chain
is made again from the base, in the same number of updates: with a share of its examples in French;
and with more of Dev2's programs, against the same number of Dev2's other samples. The ledger runs both
(`python -m tests.experiments --only french`).
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from r1lab.errors import InputError
from r1lab.rewards import shared_sandbox
from r1lab.stages.samples import COLUMNS, harvest, read_harvest, select, store_data
from r1lab.stages.sft_stages import model_folder
from r1lab.task import Problem
from r1lab.training.distributed import World
from r1lab.training.estimate import open_model
from r1lab.training.processes import StopRequest, launch
from r1lab.run import Run
from r1lab.training.sft import sft
from tests.experiments.chain import levels_of
from tests.experiments.next_steps import ROWS, Kept, Trial, measure, start, tabulate
from tests.experiments.settings import CHAIN, SFT, harvest_config, sft_config
from wordings import in_french

MEASURED = (*ROWS, "french", "language_fr")
PROGRAMS = {
    **CHAIN["rejection"]["sampling"], "mixture": {"programs/1": 1.0, "programs/2": 1.0}, "chunks": 4,
    "per_question": 8,
}  # fmt: skip


@dataclass(frozen=True)
class MoreData(Trial):
    """What both experiments have.

    Attributes:
        chain: the folder of a chain whose Dev3 is finished; `samples` and `seed` are to be its own.
        sft: as Dev3's; all arms get the number of updates that Dev3 got.
    """

    chain: str = "runs/r1"
    sft: dict[str, Any] = field(default_factory=lambda: SFT)


@dataclass(frozen=True)
class French(MoreData):
    """One arm: `share` of the reasoning examples asked and thought in French instead."""

    share: float = 0.1


@dataclass(frozen=True)
class Programs(MoreData):
    """Two arms: right programs that Dev2 is asked for besides (`sampling`), or other samples."""

    sampling: dict[str, Any] = field(default_factory=lambda: PROGRAMS)


def french(config: French = French(), folder: Path = Path("runs/french")) -> Kept:
    """Train and measure the arm; each row of the table is against Dev3."""
    rows, rng = dev3_rows(config), random.Random(f"french/{config.seed}")
    start(config, folder)
    rows = [translated(row) if rng.random() < config.share else row for row in rows]
    return compare(config, {"french": rows}, "dev3", folder)


def programs(config: Programs = Programs(), folder: Path = Path("runs/programs")) -> Kept:
    """Sample, train and measure both arms; each row of the table is against the other samples."""
    rows = dev3_rows(config)
    shared_sandbox()
    start(config, folder)
    launch(sampling_work, config.processes, config, folder)
    drawn, before = (read_harvest(place / "samples")[0] for place in (folder, dev3(config)))
    before = [row for row in before if row["family"] != "programs"]
    more, others = (unused(config, found, rows) for found in (drawn, before))
    count = min(len(more), len(others))
    if not count:
        raise InputError(f"{folder}: Dev2 gave {len(more)} new programs, and {len(others)} others.")
    rng = random.Random(f"programs/{config.seed}")
    arms = {"programs": more, "others": others}
    return compare(
        config, {arm: rows + rng.sample(new, count) for arm, new in arms.items()}, "others", folder
    )


def dev3(config: MoreData) -> Path:
    """The stage's folder. Raises InputError where the chain has not come so far."""
    folder = Path(config.chain) / "dev3"
    if not (folder / "benchmarks.json").exists():  # written last
        raise InputError(f"{folder} holds no finished Dev3; run the chain up to dev3 first.")
    return folder


def dev3_rows(config: MoreData) -> list[dict]:
    """What Dev3 learned from."""
    from datasets import load_from_disk  # takes seconds to import

    return load_from_disk(str(dev3(config) / "data")).to_list()


def translated(row: dict) -> dict:
    """A row asked and thought in French; as it was where it is no reasoning."""
    about = {name: row[name] for name in COLUMNS}
    problem, completion = in_french(Problem(**about, solution=""), row["completion"])
    return {**row, "lang": problem.lang, "prompt": problem.prompt, "completion": completion}


def unused(config: Programs, drawn: list[dict], rows: list[dict]) -> list[dict]:
    """Different samples that passed all filters and are not among `rows` yet."""

    def text(row: dict) -> tuple[str, ...]:  # the tokenizer's spaces tell nothing
        return row["prompt"], "".join(row["completion"].split())

    used = {text(row) for row in rows}
    passed = [row for row in drawn if not row["failed"] and text(row) not in used]
    kept, _ = select(harvest_config(config.sampling), passed)
    return [{name: row[name] for name in (*COLUMNS, "completion")} for row in kept]


def sampling_work(world: World, stop: StopRequest, config: Programs, folder: Path) -> bool:
    """One process's share of asking Dev2 for programs. False: stopped on the way."""
    sampler, tokenizer, _ = open_model(model_folder(f"{config.chain}/dev2", "programs"))
    sampling = harvest_config(config.sampling, seed=config.seed)
    samples = folder / "samples"
    return harvest(world, stop, sampling, sampling.task(), samples, sampler, tokenizer)


def compare(config: MoreData, arms: dict[str, list[dict]], control: str, folder: Path) -> Kept:
    """Fine-tune the base on each arm's rows, and measure; Dev3 is measured already."""
    summary = Run(dev3(config)).summary
    # One more epoch than Dev3's, cut at its steps: as many updates, however long the rows are.
    tuning = sft_config(
        config.sft, steps=summary["steps"], epochs=config.sft["epochs"] + 1, seed=config.seed,
        processes=config.processes,
    )  # fmt: skip
    models = {}
    for arm, rows in arms.items():
        data = folder / f"data_{arm}"
        if not data.exists():
            store_data(rows, data, config, str(dev3(config)), examples=len(rows))
        models[arm] = sft(summary["base"], data, tuning, arm, runs=folder).model
    measured = measure(config, models, folder, MEASURED)
    with np.load(dev3(config) / "values.npz") as values:
        measured["dev3"] = {row: values[row] for row in MEASURED}
    return tabulate(measured, control, {row: levels_of(row) for row in MEASURED}, folder)
