"""Runs what the claims still need, one resumable job per arm and seed, and keeps the ledger."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from r1lab.claims.experiments import EXPERIMENTS, Experiment
from r1lab.claims.keys import code_key, experiment_key, job_key
from r1lab.claims.measures import ArmRun, StoredRun, evenly
from r1lab.claims.registry import ARMS, SEEDS, Claim, select
from r1lab.errors import InputError
from r1lab.evaluation.estimators import bootstrap_ci, macro_mean
from r1lab.stages.zero import PRESETS
from r1lab.training.config import GRPOConfig
from r1lab.training.run import run_grpo


@dataclass(frozen=True)
class Job:
    """One arm, or a whole experiment, and seed: the configuration to run, and the run's folder.

    The folder's name ends in the job's key. So a run is resumed or reused only by the code, the
    configuration and the base that began it, and no other run is overwritten.
    """

    arm: str
    seed: int
    config: Any
    key: str
    runs: Path
    experiment: Experiment | None = None
    before: "Job | None" = None

    @property
    def name(self) -> str:
        return f"claims/{self.arm}-seed{self.seed}-{self.key}"

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    @cached_property
    def result(self) -> ArmRun | StoredRun:
        """What the finished run left, read once for all claims."""
        if self.experiment:
            return self.experiment.load(self.seed)
        return ArmRun(self.folder)

    @property
    def can_begin(self) -> bool:
        """Without its base model, which `r1lab pretrain` makes, or the experiment that it starts
        from, a job waits and others go on."""
        if self.before and self.before.experiment and not self.before.left:
            return False
        models = self.experiment.models if self.experiment else [self.config.model]
        return all(any(Path(model).glob("*.safetensors")) for model in models)

    @property
    def left(self) -> Path | None:
        """The folder of the finished run, where that is still there."""
        return self.folder if self.finished and self.folder.is_dir() else None

    @property
    def finished(self) -> bool:
        """A run writes its summary last; an experiment's file holds the key that it was run under."""
        if self.experiment:
            kept = self.experiment.load(self.seed)
            return kept is not None and kept.about["key"] == self.key
        return (self.folder / "summary.json").is_file()


@dataclass(frozen=True)
class Laboratory:
    """Where and how jobs run: `run` is `run_grpo` or has its signature, `ledger` keeps results."""

    config: GRPOConfig = PRESETS["cpu"]
    run: Callable[..., Path] = run_grpo
    runs: Path = Path("runs")
    ledger: Path = Path("data/claims.json")
    seeds: Sequence[int] = SEEDS
    experiments: Mapping[str, Experiment] = field(default_factory=lambda: EXPERIMENTS)
    _jobs: dict[tuple[str, int], Job] = field(default_factory=dict, init=False, repr=False)
    _codes: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def jobs(self, claim: Claim) -> list[Job]:
        """The claim's jobs; an arm that several claims share is the same job in each."""
        experiment = self.experiments.get(claim.jobs[0])
        seeds = experiment.seeds if experiment else self.seeds
        return [self.job(name, seed) for seed in seeds for name in claim.jobs]

    def job(self, name: str, seed: int) -> Job:
        """The job of an arm or an experiment."""
        if (name, seed) not in self._jobs:
            if name in self.experiments:
                it = self.experiments[name]
                before = self.job(it.after, seed)
                code = self._code(it.entry) + (before.key if before.experiment else "")
                key = experiment_key(code, it.config, it.models, it.problems)
                job = Job(name, seed, it.config, key, self.runs, it, before)
            else:
                config = replace(self.config, seed=seed, **ARMS[name])
                key = job_key(self._code("r1lab.training.run"), config)
                job = Job(name, seed, config, key, self.runs)
            self._jobs[name, seed] = job
        return self._jobs[name, seed]

    def go(self, job: Job) -> None:
        """Run a job, or go on with it."""
        if job.experiment:
            job.experiment.run(job.config, job.seed, job.key, job.folder, job.before.left)
        else:
            resume = (job.folder / "config.json").is_file()
            self.run(job.config, job.name, runs=job.runs, resume=resume)

    def _code(self, entry: str) -> str:
        if entry not in self._codes:
            self._codes[entry] = code_key(entry)
        return self._codes[entry]

    def results(self) -> dict[str, dict]:
        """The ledger's entries by claim. Raises InputError where the file is damaged."""
        if not self.ledger.is_file():
            return {}
        try:
            return json.loads(self.ledger.read_text(encoding="utf-8"))["claims"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.ledger} is damaged; delete it and run again.") from error


def run_missing(
    laboratory: Laboratory, *, only: str | None = None, seed: int | None = None,
    budget_seconds: float | None = None,
) -> list[str]:  # fmt: skip
    """Run the jobs that have no result for the present code, configuration and base.

    No job is started that would probably end after `budget_seconds`, judged by the longest so far.
    Where a `seed` is given, of that one alone. The ledger is written before the first job and after
    each. Returns the names of jobs not run. Raises InputError where `only` names no claim or `seed`
    no seed, and whatever a job raises; a job that was stopped goes on in the next call.
    """
    chosen = select(only)
    jobs = {job.name: job for claim in chosen for job in laboratory.jobs(claim)}
    seeds = {job.seed for job in jobs.values()}
    if seed not in (None, *seeds):
        raise InputError(f"These claims have no seed {seed}; theirs are {sorted(seeds)}.")
    mine = [job for job in jobs.values() if seed in (None, job.seed)]
    missing = [job for job in mine if not job.finished]
    record(laboratory, chosen)
    started, longest = time.monotonic(), 0.0
    while job := next((job for job in missing if job.can_begin), None):
        begun = time.monotonic()
        if budget_seconds is not None and begun - started + longest >= budget_seconds:
            break
        missing.remove(job)
        laboratory.go(job)
        longest = max(longest, time.monotonic() - begun)
        record(laboratory, [claim for claim in chosen if job in laboratory.jobs(claim)])
    return [job.name for job in missing]


def record(laboratory: Laboratory, claims: Sequence[Claim]) -> None:
    """Write the result of every claim by the seeds whose jobs are finished; keep all other entries,
    and those that know of more seeds."""
    entries = laboratory.results()
    for claim in claims:
        jobs, before = laboratory.jobs(claim), entries.get(claim.id, {})
        unfinished = {job.seed for job in jobs if not job.finished}
        done = [job for job in jobs if job.seed not in unfinished]
        if done and len({job.seed for job in done}) >= len(before.get("per_seed", {})):
            entries[claim.id] = _entry(claim, done, before, whole=not unfinished)
    laboratory.ledger.parent.mkdir(parents=True, exist_ok=True)
    partial = laboratory.ledger.with_suffix(".partial")
    text = json.dumps({"claims": entries}, indent=1, ensure_ascii=False) + "\n"
    partial.write_text(text, encoding="utf-8")
    partial.replace(laboratory.ledger)


def verdict(claim: Claim, entry: dict | None, jobs: Sequence[Job]) -> str:
    """One of shown, not shown, not run; stale: made by other code, settings, base or bounds.

    Before all seeds are run, how many are."""
    if entry is None:
        return "not run"
    present = _question(claim, jobs)
    run = {name: key for name, key in present["keys"].items() if name in entry.get("keys", {})}
    if {name: entry.get(name) for name in present} != present | {"keys": run}:
        return "stale"
    if len(run) < len(jobs):
        return f"{len(entry['per_seed'])} of {len({job.seed for job in jobs})} seeds"
    return "shown" if entry["shown"] else "not shown"


def _question(claim: Claim, jobs: Sequence[Job]) -> dict:
    """What a result answers: where any of it has changed, the result is stale."""
    return {
        "statement": claim.statement,
        "section": claim.section,
        "arms": list(claim.arms),
        "relation": claim.relation,
        "threshold": claim.threshold,
        "unit": claim.unit,
        "keys": {f"{job.arm}-seed{job.seed}": job.key for job in jobs},
    }


def _entry(claim: Claim, jobs: Sequence[Job], before: dict, whole: bool) -> dict:
    """What the finished jobs say; of fewer seeds than the `whole` nothing counts as shown."""
    by_seed: dict[int, dict[str, ArmRun | StoredRun]] = {}
    for job in jobs:
        by_seed.setdefault(job.seed, {})[job.arm] = job.result
    effects = [claim.measure(runs) for runs in by_seed.values()]
    levels = effects[0].levels
    if any(effect.ids != effects[0].ids for effect in effects):
        raise InputError(f"The seeds of {claim.id} were evaluated on different problems.")
    values = np.stack([effect.values for effect in effects])
    pooled = bootstrap_ci(*_over_seeds(values, levels))
    per_seed = [macro_mean(*_over_seeds(own[None], levels)) for own in values]
    summaries = [run.summary for runs in by_seed.values() for run in runs.values()]
    commits = {summary.get("commit") for summary in summaries} - {None}
    entry = {
        **_question(claim, jobs),
        "effect": pooled.mean,
        "ci95": [pooled.low, pooled.high],
        "per_seed": {str(seed): value for seed, value in zip(by_seed, per_seed, strict=True)},
        "shown": whole and claim.holds(per_seed, pooled),
        "minutes": round(sum(summary["wall_seconds"] for summary in summaries) / 60, 1),
        "commit": ", ".join(sorted(commits)) or None,
    }
    if all(before.get(name) == value for name, value in entry.items()):
        return before  # nothing new: it keeps its date
    return {**entry, "date": date.today().isoformat()}


def _over_seeds(
    values: Float[np.ndarray, "seed problem"], levels: Int[np.ndarray, "problem"]
) -> tuple[Float[np.ndarray, "seen"], Int[np.ndarray, "seen"]]:
    """Each problem's mean over the seeds in which it has a value, where there are any, scaled by
    `evenly`; its level."""
    seen = np.isfinite(values).any(axis=0)
    return evenly(np.nanmean(values[:, seen], axis=0), levels[seen]), levels[seen]
