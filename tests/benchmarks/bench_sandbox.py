"""Seconds in which the sandbox grades 1,000 small programs that a model wrote.

    python tests/benchmarks/bench_sandbox.py [--model FOLDER] [--programs N] [--out FILE.json]

A trained model answers the held-out problems of the family `programs`, at temperature 1. Every
program in its answers, right or wrong, is run on its problem's five tests as the reward for code
does it: in a locked-in process of its own, as many at a time as there are cores. Sampling is not
timed; the start of the sandbox, which tries what programs must not be able to do, is timed apart.

On a busy machine each program waits for its turn several times, and seconds say more of the other
work than of the sandbox. So the load average at the start is stored, the cores that other
processes kept busy meanwhile, and the niceness (whether they went first); and besides, the
computing time of grader, clean processes and programs together, which depends on them far less.
"""

import os
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import tyro
from record import ROOT, record

from r1lab.models.policy import load_model
from r1lab.rewards import program_of
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.sandbox import Sandbox
from r1lab.sources.templates import apply_template
from r1lab.task import load_problems

ROUNDS, GROUP, CAP = 20, 16, 160


def written_programs(model: str, count: int) -> list[tuple[str, list]]:
    """So many programs that the model wrote, each with its problem's tests."""
    policy, tokenizer = load_model(model)
    sampler = TorchSampler(policy, tokenizer)
    problems = load_problems(ROOT / "data" / "test_programs.jsonl")
    prompts = [tokenizer(apply_template("small", p.prompt)).input_ids for p in problems]
    found = []
    for seed in range(ROUNDS):
        params = SamplingParams(n=GROUP, max_tokens=CAP, seed=seed)
        for place, text in enumerate(sampler.generate(prompts, params).texts(tokenizer)):
            if program := program_of(text):
                found.append((program, problems[place // GROUP].tests))
        if len(found) >= count:
            return found[:count]
    raise SystemExit(f"{model} wrote {len(found)} programs in {ROUNDS} rounds; ask for fewer")


def computed(sandbox: Sandbox) -> float:
    """Seconds that this process, the clean ones and the programs that ended have computed."""
    ticks = 0
    for zygote in sandbox.zygotes:
        if zygote.process:
            stat = Path(f"/proc/{zygote.process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, stat[11:15]))  # user and system, its own and of its children
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def busy() -> float:
    """Seconds that all cores together have computed, for whatever process."""
    user, nice, system, _, _, irq, soft, *_ = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, soft))) / os.sysconf("SC_CLK_TCK")


def main(model: str = str(ROOT / "data" / "r1"), programs: int = 1000, out: Path | None = None) -> None:
    """Time the grading of programs that a model wrote.

    Args:
        model: folder of a trained model in Hugging Face format.
        programs: so many are graded.
        out: file for the results as JSON; they are printed in any case.
    """
    sources, tests = zip(*written_programs(model, programs), strict=True)
    load, began = os.getloadavg(), time.perf_counter()
    with closing(Sandbox()) as sandbox:
        started = time.perf_counter() - began
        own, all_cores, began = computed(sandbox), busy(), time.perf_counter()
        outcomes = [graded.result() for graded in [*map(sandbox.submit, sources, tests)]]
        seconds = time.perf_counter() - began
        own, all_cores = computed(sandbox) - own, busy() - all_cores
    result = {
        "model": Path(model).name,
        "programs": programs,
        "different_programs": len(set(sources)),
        "verdicts": dict(Counter(outcome.verdict for outcome in outcomes).most_common()),
        "workers": len(sandbox.zygotes),
        "seconds": round(seconds, 2),
        "programs_per_second": round(programs / seconds, 1),
        "computing_seconds": round(own, 2),
        "seconds_to_start_the_sandbox": round(started, 2),
        "other_work_beside": {
            "load_average_at_start_1_5_15_minutes": [round(value, 2) for value in load],
            "cores_busy_with_other_work": round((all_cores - own) / seconds, 2),
            "own_niceness": os.nice(0),
        },
    }
    record(result, out)


if __name__ == "__main__":
    tyro.cli(main)
