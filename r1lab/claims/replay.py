"""Do stored results still stand after a change of code? Begin each run again, and compare.

A result is keyed by all the code that could change it, so that moving a function makes it stale.
Where the base's evaluation and the first rollouts come out equal to the last bit, the change left
the run as it was, and its result takes the new key. So does an experiment, where each of its stages
begins as it did and the present code keeps the same values of its folder.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from r1lab.claims.experiments import SEARCH, write_run
from r1lab.claims.measures import StoredRun
from r1lab.claims.registry import select
from r1lab.claims.runner import Job, Laboratory
from r1lab.errors import InputError
from r1lab.evaluation.measure import MEASURES, Evaluation
from r1lab.evaluation.rows import read_rows
from r1lab.search.compare import run_seed, settings_of
from r1lab.stages.cold_start import ColdStart
from r1lab.stages.distill import Distill
from r1lab.stages.from_samples import model_folder, run_sampled
from r1lab.stages.hacking import PAYERS, follow
from r1lab.stages.pipeline import benchmark_worker
from r1lab.stages.rejection import Rejection
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import default_processes
from r1lab.stages.harvest import read_harvest
from r1lab.training.reward_model import RewardModelConfig, train_reward_models
from r1lab.training.run import launch, prepare_folder
from r1lab.training.runs import commit, write_atomically
from r1lab.training.sft import SFTConfig, run_sft

BEGINNING = 2  # rollouts or steps: the second is made by weights that the first has changed
CLOCKS = ("elapsed", "seconds")
SAMPLED = {stage.__name__: stage for stage in (ColdStart, Rejection, Distill)}
QUICK = {"programs": "programs", "unsafe": "safety"}  # small test sets, and the row of each


def replay_stale(laboratory: Laboratory) -> list[str]:
    """Give what the present code begins alike its new key: the names of these runs."""
    jobs = {job.name: job for claim in select(None) for job in laboratory.jobs(claim)}
    kept = []
    # What starts from an experiment comes after it: its key and its settings name the other's.
    for job in sorted(jobs.values(), key=lambda job: bool(job.before and job.before.experiment)):
        if not job.finished and job.can_begin and keep(laboratory, job):
            kept.append(job.name)
    return kept


def keep(laboratory: Laboratory, job: Job) -> bool:
    """Give the job the result that was found before, where it begins alike. Does it?"""
    if not job.experiment:
        return keep_run(laboratory, job)
    return keep_search(job) if job.arm == "search" else keep_experiment(laboratory, job)


def keep_run(laboratory: Laboratory, job: Job) -> bool:
    """Rename the finished folder that the job begins alike. Is there one?"""
    for folder in sorted(job.runs.glob(f"claims/{job.arm}-seed{job.seed}-*")):
        finished = (folder / "summary.json").is_file() and same_settings(job, folder)
        if finished and begins_alike(laboratory, job.config, folder):
            folder.rename(job.folder)
            return True
    return False


def same_settings(job: Job, folder: Path) -> bool:
    """Was the run made with the job's settings? Others may begin alike and end elsewhere."""
    try:
        prepare_folder(folder, job.config, resume=True, overwrite=False)
    except InputError:
        return False
    return True


def begins_alike(laboratory: Laboratory, config: GRPOConfig, folder: Path) -> bool:
    """Does the run, begun anew, write what the folder holds of its base and first rollouts?"""
    with TemporaryDirectory() as temporary:
        again = laboratory.run(
            config, "run", runs=Path(temporary), resume=False, stop_after=BEGINNING
        )
        new, base = _training(again), Evaluation.load(again / "eval_base.npz")
    stored = Evaluation.load(folder / "eval_base.npz")
    return (
        _as_before(_training(folder), new)
        and base.completions == stored.completions
        and all((base[name] == stored[name]).all() for name in MEASURES)
    )


def keep_experiment(laboratory: Laboratory, job: Job) -> bool:
    """Rename the experiment's folder, and give the file of its values the new key, where all is
    alike. Is it? Of a folder that is gone nothing can be told."""
    stored = job.experiment.load(job.seed)
    folder = stored and job.folder.with_name(f"{job.arm}-seed{job.seed}-{stored.about['key']}")
    if not (folder and folder.is_dir()) or job.folder.exists():  # the latter: begun anew already
        return False
    values = values_again(job, folder, stored)
    if values is None or not stages_alike(laboratory, job, folder):
        return False
    folder.rename(job.folder)
    for file in job.runs.glob(f"claims/*-seed{job.seed}-*/**/*.json"):  # its own, and who names it
        if folder.name in (text := file.read_text(encoding="utf-8")):
            write_atomically(file, text.replace(folder.name, job.folder.name))
    write_run(job.arm, job.seed, stored.about | {"key": job.key, "replayed": commit()}, values)
    return True


def keep_search(job: Job) -> bool:
    """Give a seed of the file of searches the new key, where its PRM, its searches among few leaves
    and its first rollouts come out as they did. Do they?"""
    stored = json.loads(SEARCH.read_text(encoding="utf-8")) if SEARCH.is_file() else {"runs": []}
    if job.seed >= len(stored["runs"]) or stored["config"] != settings_of(job.config):
        return False
    run, few = stored["runs"][job.seed], replace(job.config, rollouts=BEGINNING)
    new = run_seed(few, job.seed, levels=(2, 3), rewards=("rule", "sum"))
    if not (
        all(new[name] == run[name] for name in ("prm_loss", "before"))
        and new["levels"].items() <= run["levels"].items()
        and all(_as_before(run["arms"][paid]["rows"], arm["rows"]) for paid, arm in new["arms"].items())
    ):
        return False
    run |= {"key": job.key, "replayed": commit()}
    write_atomically(SEARCH, json.dumps(stored, ensure_ascii=False) + "\n")
    return True


def values_again(job: Job, folder: Path, stored: StoredRun) -> dict[str, np.ndarray] | None:
    """What the present code keeps of a finished folder; None where that is not what was kept, or
    the folder has other settings."""
    try:
        job.experiment.run(job.config, job.seed, stored.about["key"], folder, job.before.left)
    except InputError:
        return None
    values = job.experiment.load(job.seed).values
    write_run(job.arm, job.seed, stored.about, stored.values)  # until all is found alike
    return values if _equal(values, stored.values) else None


def stages_alike(laboratory: Laboratory, job: Job, folder: Path) -> bool:
    """Does each stage of the experiment begin anew as the folder holds it?"""
    with TemporaryDirectory() as temporary:
        again = Path(temporary)
        return (
            judges_alike(folder / "reward_models", again / "reward_models")
            and measured_alike(job, folder, again / "measured")
            and all(
                stage_alike(laboratory, file.parent, again / file.parent.name)
                for file in sorted(folder.glob("*/config.json"))
            )
        )


def stage_alike(laboratory: Laboratory, stage: Path, again: Path) -> bool:
    """Does a stage, begun anew in `again` with its own settings, go as it did?"""
    settings = json.loads((stage / "config.json").read_text(encoding="utf-8"))
    if "source" in settings:
        return sampled_alike(stage, settings, again)
    if "group_size" not in settings:
        config = replace(restored(SFTConfig(), settings), steps=BEGINNING)
        run_sft(config, settings["model"], settings["data"], again)
        return _as_before(_training(stage), _training(again))
    config = restored(GRPOConfig(), settings)
    if (stage / "eval_base.npz").exists():
        return begins_alike(laboratory, config, stage)
    short = replace(config, rollouts=BEGINNING)
    return all(_as_before(read_rows(stage / f"{p}.jsonl"), follow(short, p)) for p in PAYERS)


def sampled_alike(stage: Path, settings: dict, again: Path) -> bool:
    """Does it draw its first samples, choose its examples and learn from them as it did?"""
    made = json.loads((stage / "data/provenance.json").read_text(encoding="utf-8"))
    config = restored(SAMPLED[made["stage"]](), settings)
    config = replace(config, sft=replace(config.sft, steps=BEGINNING))
    others = shutil.ignore_patterns("chunk-0000.json")
    shutil.copytree(stage / "samples", again / "samples", ignore=others)
    run_sampled(config, again.name, runs=again.parent)
    same = _samples_and_examples(stage) == _samples_and_examples(again)
    return same and _as_before(_training(stage), _training(again))


def _samples_and_examples(run: Path) -> tuple[list[dict], list[dict]]:
    from datasets import load_from_disk  # takes seconds to import

    return read_harvest(run / "samples")[0], load_from_disk(str(run / "data")).to_list()


def judges_alike(judges: Path, again: Path) -> bool:
    """Do the reward models, where there are any, come out with the same weights?"""
    if not judges.is_dir():
        return True
    told = json.loads((judges / "helpfulness/summary.json").read_text(encoding="utf-8"))
    train_reward_models(restored(RewardModelConfig(), told["config"]), again)
    return all(
        file.read_bytes() == (again / file.relative_to(judges)).read_bytes()
        for file in judges.glob("*/model.safetensors")
    )


def measured_alike(job: Job, folder: Path, again: Path) -> bool:
    """Does one stage's model do on the small benchmarks as it did, where one was measured?"""
    stages = [file.parent for file in folder.glob("*/values.npz")]
    trained = sorted(stage for stage in stages if (stage / "checkpoints").is_dir())
    if not trained:
        return True
    again.mkdir()
    launch(
        benchmark_worker, job.config.processes or default_processes(),
        model_folder(str(trained[-1]), "replay"), job.config.samples, job.seed, again, tuple(QUICK),
    )  # fmt: skip
    with np.load(again / "values.npz") as new, np.load(trained[-1] / "values.npz") as old:
        return _equal({row: new[row] for row in QUICK.values()}, old)


def restored(default: Any, stored: Any) -> Any:
    """Settings out of their JSON; one that came later has its default, as it had in effect."""
    if is_dataclass(default):
        names = vars(default).keys() & stored.keys()
        return replace(
            default, **{name: restored(getattr(default, name), stored[name]) for name in names}
        )
    return tuple(restored(None, one) for one in stored) if isinstance(stored, list) else stored


def _equal(new: Mapping[str, np.ndarray], old: Mapping[str, np.ndarray]) -> bool:
    return all(
        name in old and np.array_equal(values, old[name], equal_nan=True)
        for name, values in new.items()
    )


def _training(run: Path) -> list[dict]:
    return [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]


def _as_before(old: list[dict], new: list[dict]) -> bool:
    """Has each row that is there anew all that the old one had, apart from times?"""
    return all(
        {name: value for name, value in was.items() if name not in CLOCKS}.items() <= now.items()
        for was, now in zip(old, new, strict=False)
    )
