"""Experiments that are run as a whole, once for each seed: the chain of all stages, the searches, and
the paper's next steps.

Many claims read one of them. Of each seed only the values per problem are kept, in one small file
of the repository, with the key of what they depend on.
"""

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from r1lab.errors import InputError
from r1lab.stages.pipeline import Chain, R1Config
from r1lab.machine import commit
from tests.experiments.chain import chain_values
from tests.experiments.cold_starts import ColdStarts, cold_starts
from tests.experiments.distil import Distil, distil
from tests.experiments.english import English, english
from tests.experiments.few_shot import FewShot, few_shot
from tests.experiments.measures import StoredRun
from tests.experiments.more_data import French, Programs, french, programs
from tests.experiments.next_steps import OneLoss, Wordings, one_loss, wordings
from tests.experiments.registry import SEEDS
from tests.experiments.searches import RL, SearchConfig, per_problem, run_searches, settings_of
from tests.experiments.settings import CHAIN, ZERO, Settings
from tests.experiments.skill import Skill, skill
from tests.experiments.thinking import Thinking, thinking

FILES = Path("data/claims")
SEARCH = Path("data/search.json")


@dataclass(frozen=True)
class Experiment:
    """How it is run and what it depends on.

    Attributes:
        settings: in plain names and numbers, for the key.
        models: what it starts from, besides what it trains itself.
        run: (seed, key, folder, the finished folder of `after` in that seed or None).
        load: what is kept of a seed, None where it was never run.
        seeds: that the ledger asks for: none that was seen before the claims were written.
        after: an arm, whose run is used where it is there; or an experiment, which is waited for.
    """

    settings: Settings
    models: tuple[str, ...]
    run: Callable[[int, str, Path, Path | None], None]
    load: Callable[[int], StoredRun | None]
    seeds: tuple[int, ...] = SEEDS
    after: str = "true"


def run_chain(seed: int, key: str, folder: Path, zero: Path | None) -> None:
    """All stages and control arms in `folder`, or what is left of them; then the file.

    Args:
        zero: R1-Zero need not be trained again where the ledger's own run of that seed is there.
    """
    chain = Chain(R1Config(seed=seed), folder.name, folder.parent)
    if zero and not (folder / "zero").exists():
        shutil.copytree(zero, folder / "zero.partial", dirs_exist_ok=True)
        (folder / "zero.partial").rename(folder / "zero")
    chain.run()
    chain.controls()
    seconds = sum(stage.get("wall_seconds", 0) for stage in chain.summary().values())
    save_run("chain", seed, key, seconds, chain_values(chain))


def run_step(
    name: str, arms: Callable[[Any, Path], dict[str, np.ndarray]],
    config: Any, seed: int, key: str, folder: Path, chain: Path | None,
) -> None:  # fmt: skip
    """All arms of a next step, or what is left of them; then the file.

    Args:
        chain: the finished chain of that seed, for those that start from one.
    """
    place = {"chain": str(chain)} if hasattr(config, "chain") else {}
    values = arms(replace(config, seed=seed, **place), folder)
    summaries = [json.loads(file.read_text("utf-8")) for file in folder.glob("*/summary.json")]
    save_run(name, seed, key, sum(arm["wall_seconds"] for arm in summaries), values)


def save_run(
    name: str, seed: int, key: str, seconds: float, values: Mapping[str, np.ndarray]
) -> None:
    """Keep an experiment's values, with what they cost: a file, whole or not at all.

    float32 holds the values to 7 digits.
    """
    about = {"key": key, "seed": seed, "commit": commit(), "wall_seconds": round(seconds, 1)}
    file = FILES / f"{name}-seed{seed}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    partial_file = file.with_suffix(".partial.npz")
    text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    floats = {name: array.astype(np.float32) for name, array in values.items()}
    np.savez_compressed(partial_file, about=text, **floats)
    partial_file.replace(file)


def load_run(name: str, seed: int) -> StoredRun | None:
    """What `save_run` kept. Raises InputError where the file is damaged."""
    file = FILES / f"{name}-seed{seed}.npz"
    if not file.is_file():
        return None
    try:
        with np.load(file) as arrays:
            values = {name: arrays[name] for name in arrays.files if name != "about"}
            return StoredRun(json.loads(arrays["about"].tobytes()), values)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{file} is damaged ({error}); restore it, or delete it.") from error


def run_search(seed: int, key: str, folder: Path, zero: Path | None) -> None:
    """The searches of all seeds up to this one that are missing, into the file of notebook 10."""
    run_searches(SearchConfig(seeds=seed + 1), SEARCH, key)


def load_search(seed: int) -> StoredRun | None:
    """Raises InputError where the file is damaged."""
    if not SEARCH.is_file():
        return None
    try:
        stored = json.loads(SEARCH.read_text(encoding="utf-8"))
        if seed >= len(stored["runs"]):
            return None
        run = stored["runs"][seed]
        found = per_problem(run, stored["config"]["problems"])
    except (ValueError, KeyError) as error:
        raise InputError(f"{SEARCH} is damaged ({error!r}); restore it, or delete it.") from error
    values = {f"{claim}/effect-{claim}": own for claim, (own, _) in found.items()}
    levels = {f"levels/effect-{claim}": own for claim, (_, own) in found.items()}
    about = {name: run.get(name) for name in ("key", "commit")}
    return StoredRun(about | {"wall_seconds": run.get("wall_seconds", 0.0)}, values | levels)


def next_step(
    name: str, arms: Callable[[Any, Path], dict[str, np.ndarray]], config: Any, *others: str
) -> Experiment:
    """A next step of the paper; one whose settings name a chain starts from the chain of its seed.

    Args:
        others: models that it needs besides its base.
    """
    settings = asdict(config)
    if "rl" in settings:
        settings["rl"] = {**ZERO, **settings["rl"], "model": config.base}
    models = (getattr(config, "base", CHAIN["base"]), *others)
    return Experiment(
        settings, models, partial(run_step, name, arms, config),
        partial(load_run, name), CHAIN_SEEDS, after="chain" if hasattr(config, "chain") else "true",
    )  # fmt: skip


CHAIN_SEEDS = (1, 2, 3)  # of seed 0 a chain with a smaller student was known
EXPERIMENTS = {
    "chain": Experiment(
        {**CHAIN, "preset": ZERO}, (CHAIN["base"], CHAIN["student"]), run_chain,
        partial(load_run, "chain"), CHAIN_SEEDS,
    ),
    "search": Experiment(
        {**settings_of(SearchConfig()), "rl": RL}, (SearchConfig.base, SearchConfig.zero),
        run_search, load_search,
    ),
    "few-shot": next_step("few-shot", few_shot, FewShot()),
    "french": next_step("french", french, French()),
    "programs": next_step("programs", programs, Programs()),
    "one-loss": next_step("one-loss", one_loss, OneLoss()),
    "wordings": next_step("wordings", wordings, Wordings()),
    "wordings-llama": next_step("wordings-llama", wordings, Wordings(base="data/llama")),
    "english": next_step("english", english, English()),
    "cold-starts": next_step("cold-starts", cold_starts, ColdStarts(), ColdStarts.zero),
    "distil": next_step("distil", distil, Distil(), Distil.teacher),
    "skill": next_step("skill", skill, Skill()),
    "thinking": next_step("thinking", thinking, Thinking(), "data/zero", "data/r1"),
}  # fmt: skip
