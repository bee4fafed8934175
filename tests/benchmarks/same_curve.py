"""The same learning curve on other machinery, and what old rollouts do to it: runs with seeds.

    python tests/benchmarks/same_curve.py [--seeds N] [--out FILE.json]
    .venv-vllm/bin/python tests/benchmarks/same_curve.py --arms vllm
    python tests/benchmarks/same_curve.py --arms none --out data/benchmarks/same_curve.json

All arms are the same short run of R1-Zero on the shipped base (`r1lab zero` with the settings of
SETTINGS, 12 rollouts of 16 questions and 8 answers), with the same seeds and questions. "one" is
one process with the torch sampler, "fsdp2" two processes with half of the weights each, "vllm"
samples with vLLM (in the environment of make test-vllm). "lag 1" and "lag 4" draw each rollout from
the policy of so many rollouts before, weighed as the loss does (truncated importance sampling, cap
2); "unweighed" leaves that weight out. A run is kept in runs/same_curve and not made again; --out
gathers all that are there: correct answers by rollout, accuracy on the held-out problems before and
after (two samples each at temperature 1, at most 160 tokens), and differences from "one" with the
same seeds, with 95 % intervals over the seeds (Student's t) and over the problems (the bootstrap of
`r1lab.evaluation.estimators`, seeds pooled). Five seeds take two cores about half an hour.
"""

import json
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
import tyro

from r1lab.evaluation.estimators import Estimate, bootstrap_ci, paired_bootstrap
from r1lab.evaluation.measure import Evaluation
from r1lab.files import read_rows
from r1lab.sampling import VLLMConfig
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import Parallel
from r1lab.training.loop import Learner
from r1lab.machine import commit, machine
from r1lab.training.rl import grpo
from r1lab.world.small_world import SmallWorld

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))
from tests.experiments.lagged import LaggedLearner  # noqa: E402

RUNS = ROOT / "runs" / "same_curve"
SETTINGS = GRPOConfig.preset(
    "cpu", rollouts=12, questions=16, group_size=8, learning_rate=3e-4, warmup_steps=4,
    caps=((0, 160),), reference_every=1000, processes=1, eval_every=99, checkpoint_every=99,
    final_samples=2,
)  # fmt: skip
MIXTURE = {"signs/1": 1.0, "signs/2": 2.0, "signs/3": 1.0}
SHARED = {"processes": 2, "parallel": Parallel(shard=True)}


class Unweighed(LaggedLearner):
    """Takes the answers of an earlier policy as if the present one had given them."""

    def rescore(self, experience):
        drift = super().rescore(experience)
        experience.rollout_logps = None
        return drift


ARMS = {
    "one": {},
    "fsdp2": SHARED,
    "vllm": {"sampler": "vllm", "vllm": VLLMConfig(kv_cache_gb=0.25)},
    "lag 1": {"learner": partial(LaggedLearner, lag=1)},
    "lag 1, unweighed": {"learner": partial(Unweighed, lag=1)},
    "lag 4": {"learner": partial(LaggedLearner, lag=4)},
    "lag 4, unweighed": {"learner": partial(Unweighed, lag=4)},
}
# Student's t, 95 %, two-sided, for so many seeds.
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}


NUMBERS = re.compile(r"\[[-\d.,e\s]*\]")  # a list of numbers goes on one line


def one_thread(kind: Callable[..., Learner], *args, **options) -> Learner:
    """Make a process's learner. One thread each, so that all arms have the same arithmetic."""
    torch.set_num_threads(1)
    return kind(*args, **options)


def train(arm: str, seed: int) -> None:
    """Make one run, or go on with it; one that is finished is left alone."""
    changes, began = dict(ARMS[arm]), time.monotonic()
    learner = partial(one_thread, changes.pop("learner", Learner))
    config = replace(SETTINGS, seed=seed, **changes)
    task, name = SmallWorld(mixture=MIXTURE).task(), folder(arm, seed).name
    grpo("data/base", task, config, name, runs=RUNS, learner=learner)
    print(f"{arm}, seed {seed}: {time.monotonic() - began:.0f} s", flush=True)


def folder(arm: str, seed: int) -> Path:
    return RUNS / f"{arm.replace(', ', '-').replace(' ', '')}-seed{seed}"


def read(arm: str, seed: int) -> dict:
    """What is stored of a finished run, and its evaluation at the end."""
    run = folder(arm, seed)
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]
    summary = json.loads((run / "summary.json").read_text())
    final = Evaluation.load(run / "eval_final.npz")
    return {
        "final": final,
        "stored": {
            "seed": seed,
            "curve": [round(row["pass_at_1"], 4) for row in rows],
            "base": round(summary["base"]["pass_at_1"], 4),
            "final": round(summary["final"]["pass_at_1"], 4),
            "grad_norm": [round(row["grad_norm"], 6) for row in rows],
            **{name: [float(f"{row[name]:.3g}") for row in rows]
               for name in ("drift_mean", "drift_max", "weights_seconds") if name in rows[-1]},
            "train_seconds": summary["train_seconds"], "commit": summary["commit"],
        },
    }  # fmt: skip


def over_seeds(values: list[float]) -> list[float]:
    """Mean, and its 95 % interval over seeds."""
    mean = statistics.mean(values)
    half = STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return [round(value, 4) for value in (mean, mean - half, mean + half)]


def rounded(estimate: Estimate) -> list[float]:
    return [round(value, 4) for value in estimate]


def late(stored: dict) -> float:
    """Correct answers in the last four rollouts."""
    return statistics.mean(stored["curve"][-4:])


def finished(arm: str, seeds: int) -> list[dict]:
    """The runs of an arm, up to the first seed that is not there."""
    there = (folder(arm, seed) / "summary.json" for seed in range(seeds))
    count = sum(1 for _ in takewhile(Path.exists, there))
    return [read(arm, seed) for seed in range(count)]


def held_out(runs: list[dict]) -> np.ndarray:
    """Of each run and problem, the share of right samples."""
    return np.stack([run["final"].accuracies()["pass_at_1"] for run in runs])


def difference(runs: list[dict], others: list[dict]) -> dict[str, list[float]]:
    """What `runs` have above `others`, seed by seed: mean and 95 % interval."""
    pairs = [(a["stored"], b["stored"]) for a, b in zip(runs, others)]
    count, levels = len(pairs), runs[0]["final"].levels
    own, base = held_out(runs[:count]), held_out(others[:count])
    return {
        "final, over problems": rounded(paired_bootstrap(own, base, levels)),
        "final, over seeds": over_seeds([a["final"] - b["final"] for a, b in pairs]),
        "late, over seeds": over_seeds([late(a) - late(b) for a, b in pairs]),
        "curve, over seeds": over_seeds(
            [statistics.mean(a["curve"]) - statistics.mean(b["curve"]) for a, b in pairs]
        ),
    }


def gather(seeds: int) -> dict:
    """Every arm that has two seeds or more; its difference from "one", and the weight's effect."""
    found = {arm: runs for arm in ARMS if len(runs := finished(arm, seeds)) > 1}
    arms = {}
    for arm, runs in found.items():
        told = arms[arm] = {
            "runs": [run["stored"] for run in runs],
            "final": rounded(bootstrap_ci(held_out(runs), runs[0]["final"].levels)),
            "late": over_seeds([late(run["stored"]) for run in runs]),
        }
        if arm != "one" and "one" in found:
            told["difference"] = difference(runs, found["one"])
        if (weighed := arm.removesuffix(", unweighed")) != arm and weighed in found:
            told["difference from weighed"] = difference(runs, found[weighed])
    return arms


def main(arms: tuple[str, ...] = (), seeds: int = 5, out: Path | None = None) -> None:
    """Make the runs that are missing, and gather those that are there.

    Args:
        arms: which to run, of those named above; all but vllm if none is named, "none" for none.
        seeds: of each arm.
        out: file for what is gathered, as JSON; a summary is printed in any case.
    """
    os.chdir(ROOT)  # the settings name files of the repository
    for seed in range(seeds):
        for arm in arms or [arm for arm in ARMS if arm != "vllm"]:
            if arm in ARMS:
                train(arm, seed)
    told = gather(seeds)
    for arm, one in told.items():
        finals = ", ".join(f"{run['final']:.3f}" for run in one["runs"])
        print(f"{arm:18} held out {finals}; {one.get('difference', {})}")
    if out:
        head = {
            "command": "python tests/benchmarks/same_curve.py", "commit": commit(),
            "date": time.strftime("%Y-%m-%d"), "machine": machine(),
        }  # fmt: skip
        usual = asdict(GRPOConfig.preset("cpu"))
        settings = {name: v for name, v in asdict(SETTINGS).items() if v != usual[name]}
        settings["mixture"] = MIXTURE
        text = json.dumps({**head, "settings": settings, "arms": told}, indent=1)
        out.write_text(NUMBERS.sub(lambda row: re.sub(r"\s+", " ", row[0]), text) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
