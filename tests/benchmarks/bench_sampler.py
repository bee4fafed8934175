"""Tokens per second of `TorchSampler` against `transformers.generate`, on two cores of a CPU.

    python tests/benchmarks/bench_sampler.py [--model FOLDER] [--own-lengths] [--out FILE.json]

256 completions (16 held-out problems, groups of 16) at temperature 1, in two rows: lengths like
those of a trained policy, capped at 256, and 128 tokens each. Each side is run as one process of
two threads and as two processes of one thread with half of the prompts each; generate with batches
of 64 and of all rows. A side's best arm counts. Arms take turns within a repeat, and the ratio is
taken repeat by repeat.

Lengths: a forward hook, the same on both sides, gives the end token a set probability at each
position (lengths from 20 to 256, mean about 120), or 0 for equal lengths. With `--own-lengths` a
trained model ends its texts itself in the first row.
"""

import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

# For the workers, and the same for both sides: sleeping threads while others work, and a malloc
# that keeps its memory (without these, page faults take a third of the time).
os.environ.update(
    OMP_WAIT_POLICY="PASSIVE", MALLOC_MMAP_THRESHOLD_=str(2**30), MALLOC_TRIM_THRESHOLD_=str(2**32),
    MALLOC_TOP_PAD_=str(2**26),
)  # fmt: skip

import torch  # noqa: E402
import tyro  # noqa: E402
from record import ROOT, record, spread  # noqa: E402

from r1lab.models.policy import load_model  # noqa: E402
from r1lab.sampling import SamplingParams, TorchSampler  # noqa: E402
from r1lab.task import load_problems  # noqa: E402
from r1lab.sources.templates import apply_template  # noqa: E402

GROUP, PROMPTS, CAP, EQUAL = 16, 16, 256, 128
worker = {}  # what a worker process holds: model, tokenizer, prompts, chances of the end token


@dataclass(frozen=True)
class Arm:
    """One way to run one side."""

    side: str
    processes: int
    batch: int = 256

    def __str__(self) -> str:
        batch = f", batch {self.batch}" if self.side == "generate" else ""
        return f"{self.side}: {self.processes} x {2 // self.processes} threads{batch}"


ARMS = (
    Arm("r1lab", 1), Arm("r1lab", 2), Arm("generate", 1, 64), Arm("generate", 1, 256),
    Arm("generate", 2, 64), Arm("generate", 2, 128),
)  # fmt: skip


def end_chances() -> torch.Tensor:
    """Chance of the end token at each position: lengths log-normal around 108, from 20 tokens.

    Position 16 stands for the first token of a completion: prompts here have 10 to 20 tokens.
    """
    length = torch.arange(2048.0)
    density = (-((length / 108).log() ** 2) / (2 * 0.5**2)).exp() / length.clamp(min=1)
    density[:20] = 0
    hazard = density / density.flip(0).cumsum(0).flip(0).clamp(min=1e-12)
    return torch.cat([torch.zeros(16), hazard[:-16]])


def start_worker(model: str, threads: int) -> None:
    torch.set_num_threads(threads)
    policy, tokenizer = load_model(model)
    policy.register_forward_hook(set_end, with_kwargs=True)
    problems = load_problems(ROOT / "data" / "test_signs.jsonl")
    asked = problems[:: len(problems) // PROMPTS][:PROMPTS]
    prompts = [tokenizer(apply_template("small", problem.prompt)).input_ids for problem in asked]
    worker.update(model=policy, tokenizer=tokenizer, prompts=prompts)


def set_end(model, args, kwargs, output):
    """End each row with the chance set for its position, and never else; forbid padding."""
    if worker["end"] is not None:
        chance = worker["end"][kwargs["position_ids"][:, -1]]
        logits, tokenizer = output.logits[:, -1], worker["tokenizer"]
        logits[:, tokenizer.eos_token_id] = torch.where(torch.rand(len(chance)) < chance, 1e9, -1e9)
        logits[:, tokenizer.pad_token_id] = -1e9
    return output


def run_part(arm: Arm, lengths: str, seed: int, part: int) -> list[int]:
    """Answer this process's share of the prompts; the number of tokens of each completion."""
    prompts = worker["prompts"][part :: arm.processes]
    ends = {"equal": torch.zeros(2048), "trained": end_chances(), "own": None}
    worker["end"] = ends[lengths]
    cap = EQUAL if lengths == "equal" else CAP
    torch.manual_seed(2 * seed + part)
    if arm.side == "r1lab":
        sampler = TorchSampler(worker["model"], worker["tokenizer"])
        rollouts = sampler.generate(prompts, SamplingParams(n=GROUP, max_tokens=cap, seed=seed))
        return [len(completion) for completion in rollouts.completion_ids]
    rows = [prompt for prompt in prompts for _ in range(GROUP)]
    return [
        length for i in range(0, len(rows), arm.batch) for length in generate(rows[i : i + arm.batch], cap)
    ]


@torch.inference_mode()
def generate(rows: list[list[int]], cap: int) -> list[int]:
    """Lengths of completions by transformers' own loop, prompts padded on the left."""
    tokenizer = worker["tokenizer"]
    longest = max(map(len, rows))
    tokens = worker["model"].generate(
        torch.tensor([[tokenizer.pad_token_id] * (longest - len(row)) + row for row in rows]),
        attention_mask=torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=cap,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )[:, longest:]
    return (tokens != tokenizer.pad_token_id).sum(1).tolist()


def run_arm(pools: dict[int, ProcessPoolExecutor], arm: Arm, lengths: str, seed: int) -> dict:
    """One timed run over all processes of an arm."""
    start = time.perf_counter()
    parts = [pools[arm.processes].submit(run_part, arm, lengths, seed, part) for part in range(arm.processes)]
    counts = [count for part in parts for count in part.result()]
    return {"rate": sum(counts) / (time.perf_counter() - start), "counts": counts}


def measure(pools: dict[int, ProcessPoolExecutor], lengths: str, repeats: int) -> dict:
    """One row of the benchmark: every arm in every repeat, the first (unmeasured) to warm up."""
    runs = {arm: [] for arm in ARMS}
    for repeat in range(repeats + 1):
        for arm in ARMS:
            run = run_arm(pools, arm, lengths, seed=repeat)
            if repeat:
                runs[arm].append(run)
    rates = {arm: [run["rate"] for run in runs[arm]] for arm in ARMS}
    best = {
        side: max((a for a in ARMS if a.side == side), key=lambda a: statistics.median(rates[a]))
        for side in ("r1lab", "generate")
    }
    counts = {side: [n for run in runs[arm] for n in run["counts"]] for side, arm in best.items()}
    ours, theirs = rates[best["r1lab"]], rates[best["generate"]]
    return {
        "lengths": lengths,
        "mean_tokens": {side: statistics.mean(values) for side, values in counts.items()},
        "tokens_per_second": {str(arm): spread(rates[arm]) for arm in ARMS},
        "best": {side: str(arm) for side, arm in best.items()},
        "ratio": spread([a / b for a, b in zip(ours, theirs, strict=True)]),
    }


def print_row(row: dict) -> None:
    means = ", ".join(f"{side} {mean:.0f}" for side, mean in row["mean_tokens"].items())
    print(f"\nlengths: {row['lengths']} (mean {means})\n{'tokens/s':36}    min  median     max")
    for arm, rate in row["tokens_per_second"].items():
        mark = "*" if arm in row["best"].values() else " "
        print(f"{mark} {arm:34}" + "".join(f"{value:8.0f}" for value in rate.values()))
    ratio = "".join(f"{value:8.2f}" for value in row["ratio"].values())
    print(f"  {'ratio of the best arms (*)':34}{ratio}")


def main(
    model: str = str(ROOT / "data" / "base"),
    own_lengths: bool = False,
    repeats: int = 5,
    out: Path | None = None,
) -> None:
    """Compare the sampler with transformers.generate.

    Args:
        model: folder of a model in Hugging Face format.
        own_lengths: let the model end its texts itself (for a trained one).
        repeats: measured repeats of every arm, after one that is not measured.
        out: file for the results as JSON; they are printed in any case.
    """
    spawn = get_context("spawn")
    pools = {n: ProcessPoolExecutor(n, spawn, start_worker, (model, 2 // n)) for n in (1, 2)}
    rows = []
    for lengths in ("own" if own_lengths else "trained", "equal"):
        rows.append(measure(pools, lengths, repeats))
        print_row(rows[-1])
    for pool in pools.values():
        pool.shutdown()
    result = {"model": Path(model).name, "completions": GROUP * PROMPTS, "repeats": repeats, "rows": rows}
    record(result, out)


if __name__ == "__main__":
    tyro.cli(main)
