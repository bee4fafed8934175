"""Do stored results still stand after a change of code? Begin each run again, and compare.

A result is keyed by all the code that could change it, so that moving a function makes it stale.
Where the base's evaluation and the first rollouts come out equal to the last bit, the change left
the run as it was, and its result takes the new key.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from r1lab.claims.registry import select
from r1lab.claims.runner import Job, Laboratory
from r1lab.errors import InputError
from r1lab.evaluation.evaluate import MEASURES, Evaluation
from r1lab.evaluation.rows import read_rows
from r1lab.training.run import prepare_folder

ROLLOUTS = 2  # the second is drawn from weights that the first has changed
CLOCKS = ("elapsed", "seconds")


def replay_stale(laboratory: Laboratory) -> list[str]:
    """Rename the folders of finished runs that the present code begins alike; the names of these."""
    jobs = {job.name: job for claim in select(None) for job in laboratory.jobs(claim)}
    kept = []
    for job in jobs.values():
        if job.experiment or job.finished or not job.can_begin:
            continue  # an experiment is kept as values: nothing to begin anew
        for folder in sorted(job.runs.glob(f"claims/{job.arm}-seed{job.seed}-*")):
            finished = (folder / "summary.json").is_file() and same_settings(job, folder)
            if finished and begins_alike(laboratory, job, folder):
                folder.rename(job.folder)
                kept.append(job.name)
                break
    return kept


def same_settings(job: Job, folder: Path) -> bool:
    """Was the run made with the job's settings? Others may begin alike and end elsewhere."""
    try:
        prepare_folder(folder, job.config, resume=True, overwrite=False)
    except InputError:
        return False
    return True


def begins_alike(laboratory: Laboratory, job: Job, folder: Path) -> bool:
    """Does the job, begun anew, write what the folder holds of its base and first rollouts?"""
    with TemporaryDirectory() as temporary:
        again = laboratory.run(
            job.config, "run", runs=Path(temporary), resume=False, stop_after=ROLLOUTS
        )
        new, base = _training(again), Evaluation.load(again / "eval_base.npz")
    old, stored = _training(folder), Evaluation.load(folder / "eval_base.npz")
    return (
        all(was.items() <= now.items() for was, now in zip(old, new, strict=False))
        and base.completions == stored.completions
        and all((base[name] == stored[name]).all() for name in MEASURES)
    )


def _training(run: Path) -> list[dict]:
    rows = read_rows(run / "metrics.jsonl")
    return [_measured(row) for row in rows if row["kind"] == "train"]


def _measured(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in CLOCKS}
