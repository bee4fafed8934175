"""Runs what the claims still need, one resumable job per arm and seed, and keeps the ledger."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from r1lab.errors import InputError
from r1lab.evaluation.estimators import bootstrap_ci, macro_mean
from r1lab.files import write_text
from r1lab.training.rl import grpo
from tests.experiments.experiment import EXPERIMENTS, Experiment
from tests.experiments.keys import result_key
from tests.experiments.measures import ArmRun, StoredRun, evenly
from tests.experiments.registry import ARMS, CLAIMS, PROOFS, SEEDS, Claim, select
from tests.experiments.settings import ZERO, Settings, rl_stage, way_to_learn


@dataclass(frozen=True)
class Job:
    """One arm, or a whole experiment, and seed: the settings to run with, and the run's folder.

    The folder's name ends in the job's key. So a run is resumed or reused only by the settings and
    the base that started it, and no other run is overwritten.
    """

    arm: str
    seed: int
    settings: Settings
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
    def can_start(self) -> bool:
        """Without its base model, which `r1lab pretrain` makes, or the experiment that it starts
        from, a job waits and others go on."""
        if self.before and self.before.experiment and not self.before.left:
            return False
        models = self.experiment.models if self.experiment else [self.settings["model"]]
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


def run_arm(settings: Settings, name: str, runs: Path) -> None:
    """Train R1-Zero with these settings in `runs/name`, or go on there."""
    stage, way = rl_stage(settings), way_to_learn(settings)
    grpo(settings["model"], stage.world.task(), stage.rl, name, runs=runs, **way)


@dataclass(frozen=True)
class Laboratory:
    """Where and how jobs run: `run` is `run_arm` or has its signature, `ledger` keeps results."""

    settings: Settings = field(default_factory=lambda: ZERO)
    run: Callable[[Settings, str, Path], None] = run_arm
    runs: Path = Path("runs")
    ledger: Path = Path("data/claims.json")
    seeds: Sequence[int] = SEEDS
    experiments: Mapping[str, Experiment] = field(default_factory=lambda: EXPERIMENTS)
    _jobs: dict[tuple[str, int], Job] = field(default_factory=dict, init=False, repr=False)

    def jobs(self, claim: Claim) -> list[Job]:
        """The claim's jobs; an arm that several claims share is the same job in each."""
        experiment = self.experiments.get(claim.jobs[0])
        seeds = experiment.seeds if experiment else self.seeds
        return [self.job(name, seed) for seed in seeds for name in claim.jobs]

    def job(self, name: str, seed: int) -> Job:
        """The job of an arm or an experiment."""
        if (name, seed) not in self._jobs:
            make = self._experiment_job if name in self.experiments else self._arm_job
            self._jobs[name, seed] = make(name, seed)
        return self._jobs[name, seed]

    def _experiment_job(self, name: str, seed: int) -> Job:
        it = self.experiments[name]
        before = self.job(it.after, seed)
        settings = dict(it.settings)
        if before.experiment:
            settings["after"] = before.key
        key = result_key(name, settings, it.models)
        return Job(name, seed, settings, key, self.runs, it, before)

    def _arm_job(self, name: str, seed: int) -> Job:
        settings = {**self.settings, **ARMS[name], "seed": seed}
        return Job(name, seed, settings, result_key(name, settings, [settings["model"]]), self.runs)

    def go(self, job: Job) -> None:
        """Run a job, or go on with it."""
        if job.experiment:
            job.experiment.run(job.seed, job.key, job.folder, job.before.left)
        else:
            self.run(job.settings, job.name, job.runs)

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
    """Run the jobs that have no result for the present settings, version and base.

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
    missing = [job for job in jobs.values() if seed in (None, job.seed) and not job.finished]
    record(laboratory, chosen)
    started, longest = time.monotonic(), 0.0
    while job := next((job for job in missing if job.can_start), None):
        job_started = time.monotonic()
        if budget_seconds is not None and job_started - started + longest >= budget_seconds:
            break
        missing.remove(job)
        laboratory.go(job)
        longest = max(longest, time.monotonic() - job_started)
        record(laboratory, [claim for claim in chosen if job in laboratory.jobs(claim)])
    return [job.name for job in missing]


def record(laboratory: Laboratory, claims: Sequence[Claim]) -> None:
    """Write the result of every one of these claims by the seeds whose jobs are finished.

    All other entries are kept, and those that know of more seeds. Each claim gets its verdict.
    """
    entries = laboratory.results()
    for claim in claims:
        jobs, before = laboratory.jobs(claim), entries.get(claim.id, {})
        unfinished = {job.seed for job in jobs if not job.finished}
        done = [job for job in jobs if job.seed not in unfinished]
        if done and len({job.seed for job in done}) >= len(before.get("per_seed", {})):
            entries[claim.id] = _entry(claim, done, before, whole=not unfinished)
    for claim in CLAIMS:
        entry, jobs = entries.get(claim.id), laboratory.jobs(claim)
        entries[claim.id] = {**(entry or _question(claim, [])), "verdict": verdict(claim, entry, jobs)}
    rows = [f'"{claim.id}": {json.dumps(entries[claim.id], ensure_ascii=False)}' for claim in CLAIMS]
    theorems = json.dumps([proof._asdict() for proof in PROOFS], ensure_ascii=False)
    laboratory.ledger.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(rows)  # a claim a line
    write_text(laboratory.ledger, f'{{"claims": {{\n{lines}\n}}, "theorems": {theorems}}}\n')


def verdict(claim: Claim, entry: dict | None, jobs: Sequence[Job]) -> str:
    """One of shown, not shown, not run; stale: made with another version, settings, base or bounds.

    Before all seeds are run, how many are."""
    if entry is None or "effect" not in entry:
        return "not run"
    seeds = len({job.seed for job in jobs})
    present = _question(claim, jobs)
    run = {name: key for name, key in present["keys"].items() if name in entry["keys"]}
    result = "shown" if entry["shown"] else "not shown"
    if {name: entry.get(name) for name in present} != present | {"keys": run}:
        return f"{result} (stale)" if len(entry["per_seed"]) == seeds else "stale"
    return result if len(run) == len(jobs) else f"{len(entry['per_seed'])} of {seeds} seeds"


def _question(claim: Claim, jobs: Sequence[Job]) -> dict:
    """What a result answers: where any of it has changed, the result is stale."""
    about = {key: value for key, value in asdict(claim).items() if key not in ("id", "measure")}
    about["arms"] = list(claim.arms)
    return {**about, "keys": {f"{job.arm}-seed{job.seed}": job.key for job in jobs}}


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
    span = (-1.0 if len(claim.arms) > 1 else 0.0, 1.0)  # of a difference of shares, or of a share
    pooled = bootstrap_ci(*_over_seeds(values, levels), span=span)
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
