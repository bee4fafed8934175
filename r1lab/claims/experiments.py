"""Experiments that are run as a whole, once for each seed: the chain of all stages, and the searches.

Many claims read one of them. Of each seed only the values per problem are kept, in one small file
of the repository, with the key of what they depend on.
"""

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from r1lab.claims.keys import held_out_files
from r1lab.claims.measures import StoredRun
from r1lab.claims.registry import SEEDS
from r1lab.errors import InputError
from r1lab.search.compare import CompareConfig, compare, per_problem
from r1lab.stages.kept import chain_values
from r1lab.stages.pipeline import Chain, R1Config
from r1lab.training.runs import commit

FILES = Path("data/claims")
SEARCH = Path("data/search.json")
CHAIN = R1Config()


@dataclass(frozen=True)
class Experiment:
    """How it is run and what it depends on.

    Attributes:
        entry: the module whose code, with all that it imports, decides what comes out.
        models, problems: what it starts from and asks, besides what the code makes.
        run: (config, seed, key, folder, the finished R1-Zero of that seed or None).
        load: what is kept of a seed, None where it was never run.
        seeds: that the ledger asks for: none that was seen before the claims were written.
    """

    entry: str
    config: Any
    models: tuple[str, ...]
    problems: tuple[Path, ...]
    run: Callable[[Any, int, str, Path, Path | None], None]
    load: Callable[[int], StoredRun | None]
    seeds: tuple[int, ...] = SEEDS


def run_chain(config: R1Config, seed: int, key: str, folder: Path, zero: Path | None) -> None:
    """All stages and control arms in `folder`, or what is left of them; then the file.

    Args:
        zero: R1-Zero need not be trained again where the ledger's own run of that seed is there.
    """
    chain = Chain(replace(config, seed=seed), folder.name, folder.parent)
    if zero and not (folder / "zero").exists():
        shutil.copytree(zero, folder / "zero.partial", dirs_exist_ok=True)
        (folder / "zero.partial").rename(folder / "zero")
    chain.run()
    chain.controls()
    told = chain.summary()
    seconds = sum(stage.get("wall_seconds", 0) for stage in told.values())
    about = {"key": key, "seed": seed, "commit": commit(), "wall_seconds": round(seconds, 1)}
    save_run(FILES / f"chain-seed{seed}.npz", about, chain_values(chain, told))


def save_run(file: Path, about: dict, values: dict[str, np.ndarray]) -> None:
    """Keep an experiment's values, whole or not at all; float32 holds them to 7 digits."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    np.savez_compressed(
        partial, about=text, **{name: array.astype(np.float32) for name, array in values.items()}
    )
    partial.replace(file)


def load_chain(seed: int) -> StoredRun | None:
    """Raises InputError where the file is damaged."""
    file = FILES / f"chain-seed{seed}.npz"
    if not file.is_file():
        return None
    try:
        with np.load(file) as arrays:
            values = {name: arrays[name] for name in arrays.files if name != "about"}
            return StoredRun(json.loads(arrays["about"].tobytes()), values)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{file} is damaged ({error}); restore it, or delete it.") from error


def run_search(config: CompareConfig, seed: int, key: str, folder: Path, zero: Path | None) -> None:
    """The searches of all seeds up to this one that are missing, into the file of notebook 10."""
    compare(replace(config, seeds=seed + 1), SEARCH, key)


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


EXPERIMENTS = {
    "chain": Experiment(
        "r1lab.stages.kept", CHAIN, (CHAIN.base, CHAIN.student),
        tuple(held_out_files()), run_chain, load_chain,
        seeds=(1, 2, 3),  # of 0 a chain with a smaller student was known
    ),
    "search": Experiment(
        "r1lab.search.compare", CompareConfig(), (CompareConfig.base, CompareConfig.zero), (),
        run_search, load_search,
    ),
}  # fmt: skip
