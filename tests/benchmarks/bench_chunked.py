"""Time and memory of the chunked log-probs against full logits, on one core of a CPU.

    python tests/benchmarks/bench_chunked.py [--repeats N] [--out FILE.json]

The head of Qwen2.5 0.5B: 151,936 tokens, hidden size 896, at 512 rows in fp32. Both ways take turns
in one process, and the ratio is taken repeat by repeat. Memory is the highest resident memory of a
fresh process above what it held before the call, less the gradients of the hidden states and the
weight, which both ways have to return. Chunked logits are computed twice, so forward and backward
are four matrix products instead of three.
"""

import ctypes
import subprocess
import sys
import time
from pathlib import Path

import torch
import tyro
from record import record, spread

from r1lab.kernels import linear_logprob
from r1lab.kernels.reference import plain_linear

VOCAB, HIDDEN, ROWS = 151_936, 896, 512
MIB = 2**20
TARGETS = {"memory": 0.2, "forward": 1.1, "both": 1.4}


def inputs(rows: int = ROWS) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(hidden, weight, ids, incoming gradient), seeded."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(rows, HIDDEN, generator=g, requires_grad=True)
    w = torch.randn(VOCAB, HIDDEN, generator=g).mul_(HIDDEN**-0.5).requires_grad_()
    return x, w, torch.randint(0, VOCAB, (rows,), generator=g), torch.randn(rows, generator=g)


def chunked(x, w, ids):
    return linear_logprob(x, w, ids).logp


def full(x, w, ids):
    """All logits at once, in plain torch."""
    return plain_linear(x, w, ids, 1.0, entropy=False).logp


WAYS = {"chunked": chunked, "full": full}


def passes(way: str, kind: str, x, w, ids, g) -> None:
    """The forward pass without gradients, or both passes."""
    if kind == "forward":
        with torch.no_grad():
            WAYS[way](x, w, ids)
    else:
        torch.autograd.grad(WAYS[way](x, w, ids), [x, w], g)


def resident(field: str) -> int:
    """Bytes of memory of this process: now (VmRSS) or at the highest (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{field} is not told here; this measurement needs Linux")


def peak_mib(way: str, kind: str) -> float:
    """Memory above inputs and gradients, in this process, which must be fresh."""
    passes(way, kind, *inputs(rows=32))  # libraries are loaded by the first call
    x, w, ids, g = inputs()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the first call freed must not be used again
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    passes(way, kind, x, w, ids, g)
    returned = 0 if kind == "forward" else 4 * (x.numel() + w.numel())
    return (resident("VmHWM") - before - returned) / MIB


def seconds(way: str, kind: str, tensors: tuple) -> float:
    start = time.perf_counter()
    passes(way, kind, *tensors)
    return time.perf_counter() - start


def main(repeats: int = 5, out: Path | None = None, only: tuple[str, str] | None = None) -> None:
    """Compare the chunked log-probs with full logits.

    Args:
        repeats: of every way.
        out: file for the results as JSON; they are printed in any case.
        only: way and kind whose memory to measure in this process.
    """
    torch.set_num_threads(1)
    if only:
        print(peak_mib(*only))
        return
    memory = {}
    for way in WAYS:
        for kind in ("forward", "both"):
            command = [sys.executable, __file__, "--only", way, kind]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            memory[f"{way}, {kind}"] = float(done.stdout)
            print(f"{way}, {kind}: {memory[f'{way}, {kind}']:.0f} MiB", flush=True)
    tensors = inputs()
    times: dict[str, list[float]] = {f"{way}, {kind}": [] for way in WAYS for kind in ("forward", "both")}
    for kind in ("forward", "both"):
        for way in WAYS:
            seconds(way, kind, tensors)  # not counted
        for _ in range(repeats):
            for way in WAYS:
                times[f"{way}, {kind}"].append(seconds(way, kind, tensors))
                print(f"{way}, {kind}: {times[f'{way}, {kind}'][-1]:.2f} s", flush=True)
    ratios = {
        kind: spread([a / b for a, b in zip(times[f"chunked, {kind}"], times[f"full, {kind}"], strict=True)])
        for kind in ("forward", "both")
    }
    result = {
        "rows": ROWS, "hidden": HIDDEN, "vocab": VOCAB, "repeats": repeats,
        "mib_beyond_inputs_and_gradients": memory,
        "memory_ratio": {k: memory[f"chunked, {k}"] / memory[f"full, {k}"] for k in ratios},
        "seconds": {name: spread(values) for name, values in times.items()},
        "time_ratio": ratios,
        "targets_at_most": TARGETS,
    }  # fmt: skip
    record(result, out)


if __name__ == "__main__":
    tyro.cli(main)
