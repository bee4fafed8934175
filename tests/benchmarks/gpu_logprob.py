"""Log-probs on a GPU: ours against every peer that is installed.

    python tests/benchmarks/gpu_logprob.py [--rounds N] [--out FILE.json]     (make bench-gpu)

The points are the heads of Qwen2.5 1.5B and 7B at 8,192 tokens in bf16. Each measurement is a
process of its own; providers take turns within a round, every other round backwards, after three
seconds of warming up (clocks fall under load). A row tells forward, both passes and their
difference (some peers form gradients in the forward pass), the memory above the inputs and above
the gradients, and the error against float64 of the same inputs. Data: random, and peaked rows in
which the chosen token has nearly all probability, as after training; some peers skip work there.

TF/s count 2 N H V for forward and 8 N H V for both with recomputing (6 for those that keep the
logits). SOL is the time of the bare matrix product over ours. A peer that is not installed (pip
install liger-kernel cut-cross-entropy), or fails, is named with the reason. Without a GPU nothing
is measured and nothing is written.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro

from r1lab.kernels import linear_logprob
from r1lab.kernels.reference import plain_linear
from r1lab.machine import machine

TEMPERATURE, SAMPLED_ROWS = 0.8, 64
REPEAT_MS, WARM_UP_MS = 500, 3000


@dataclass(frozen=True)
class Point:
    """The size of a call."""

    tokens: int
    hidden: int
    vocab: int


POINTS = {"1.5B": Point(8192, 1536, 151_936), "7B": Point(8192, 3584, 152_064)}


def ours(x, w, ids):
    return linear_logprob(x, w, ids, temperature=TEMPERATURE).logp


def ours_with_entropy(x, w, ids):
    return linear_logprob(x, w, ids, temperature=TEMPERATURE, return_entropy=True).logp


def torch_fp32(x, w, ids):
    """What one writes first: 16-bit logits, then everything in fp32."""
    return ((x @ w.T).float() / TEMPERATURE).log_softmax(-1).gather(1, ids[:, None])[:, 0]


def torch_compiled(x, w, ids):
    return torch.compile(torch_fp32)(x, w, ids)


def torch_linear_cross_entropy(x, w, ids):
    from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

    options = LinearCrossEntropyOptions()
    call = torch.nn.functional.linear_cross_entropy
    return -call(x / TEMPERATURE, w, ids, reduction="none", options=options)


def trl_selective(x, w, ids):
    from trl.trainer.utils import selective_log_softmax

    return selective_log_softmax((x @ w.T / TEMPERATURE)[None], ids[None])[0]


def trl_chunked(x, w, ids):
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE as size

    return ChunkedLogProbFunction.apply(x, w, None, ids, TEMPERATURE, size, None, 1.0, ())[0]


def liger_cross_entropy(x, w, ids):
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return -LigerFusedLinearCrossEntropyLoss(reduction="none")(w, x / TEMPERATURE, ids)


def liger_scaled(x, w, ids):
    from liger_kernel.ops.fused_linear_scaled_cross_entropy import (
        LigerFusedLinearScaledCrossEntropyFunction as Scaled,
    )

    out = Scaled.apply(x, w, ids, TEMPERATURE)
    return -(out[0] if isinstance(out, tuple) else out)


def cut_cross_entropy(x, w, ids, **options):
    from cut_cross_entropy import linear_cross_entropy

    return -linear_cross_entropy(x / TEMPERATURE, w, ids, reduction="none", **options)


def bare_product(x, w, ids):
    """No log-probs at all: the matrix product alone, which nothing here can beat."""
    return (x @ w.T)[:, 0]


PROVIDERS: dict[str, Callable] = {
    "r1lab": ours,
    "r1lab with entropy": ours_with_entropy,
    "torch, fp32 softmax": torch_fp32,
    "torch.compile": torch_compiled,
    "torch linear_cross_entropy": torch_linear_cross_entropy,
    "TRL selective_log_softmax": trl_selective,
    "TRL chunked": trl_chunked,
    "Liger fused cross-entropy": liger_cross_entropy,
    "Liger fused scaled cross-entropy": liger_scaled,
    "cut-cross-entropy": cut_cross_entropy,
    "cut-cross-entropy, no filter": partial(cut_cross_entropy, filter_eps=None),
    "bare matrix product": bare_product,
}


def inputs(point: Point, data: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator("cuda").manual_seed(0)
    make = partial(torch.randn, generator=g, device="cuda")
    w = make(point.vocab, point.hidden) * point.hidden**-0.5
    x = make(point.tokens, point.hidden) * 2
    ids = torch.randint(0, point.vocab, (point.tokens,), generator=g, device="cuda")
    if data == "peaked":
        x = w[ids] * 18 + 0.1 * x
    kind = torch.bfloat16
    return x.to(kind).requires_grad_(), w.to(kind).requires_grad_(), ids


def milliseconds(function: Callable) -> float:
    """Median time of a call, with a cold cache between calls."""
    from triton.testing import do_bench

    return do_bench(function, warmup=WARM_UP_MS, rep=REPEAT_MS, return_mode="median")


def peak_mib(function: Callable) -> float:
    """Memory that a call adds at its highest."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kept = function()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    del kept
    return peak / 2**20


def measure(name: str, point: Point, data: str) -> dict:
    """One row: times, memory, and the error against float64 on a sample of the tokens."""
    x, w, ids = inputs(point, data)
    g = torch.randn(point.tokens, device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    call, leaves = PROVIDERS[name], [x, w]
    arguments = (*leaves, ids)

    def both():
        out = call(*arguments)
        return torch.autograd.grad(out, leaves, g.to(out.dtype))

    forward_ms = milliseconds(lambda: call(*arguments))
    both_ms = milliseconds(both)
    row = {
        "forward_ms": forward_ms, "both_ms": both_ms, "backward_ms": both_ms - forward_ms,
        "forward_mib": peak_mib(lambda: call(*arguments)),
        "both_mib": peak_mib(both),
        "gradients_mib": sum(leaf.numel() * leaf.itemsize for leaf in leaves) / 2**20,
    }  # fmt: skip
    work = 2 * point.tokens * point.hidden * point.vocab / 1e9
    row |= {"forward_tflops": work / forward_ms, "both_tflops": 4 * work / both_ms}
    return row if name == "bare matrix product" else row | errors(call, arguments, leaves, g, both)


def errors(call, arguments, leaves, g, both) -> dict:
    """Largest error of log-probs, and relative error of the first input's gradient."""
    rows = torch.arange(0, len(g), max(1, len(g) // SAMPLED_ROWS), device=g.device)
    logp = call(*arguments).detach()[rows].double()
    gradient = both()[0][rows].double()
    first = leaves[0].detach()[rows].double().requires_grad_()
    ids = arguments[-1][rows]
    right = plain_linear(first.double(), leaves[1].detach().double(), ids, TEMPERATURE).logp
    (truth,) = torch.autograd.grad(right, first, g[rows].double())
    return {
        "logp_error": (logp - right).abs().max().item(),
        "gradient_error": ((gradient - truth).norm() / truth.norm()).item(),
    }


def copy_rate() -> float:
    """GB/s read and written by a plain copy of 2 GiB."""
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / 1e6 / milliseconds(lambda: target.copy_(source))


def run_alone(name: str, point: str, data: str) -> dict:
    """`measure` in a fresh process; the reason where it fails."""
    done = subprocess.run(
        [sys.executable, __file__, "--only", name, point, data],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1])
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    absent = "ModuleNotFoundError" in reason or "ImportError" in reason
    return {"missing" if absent else "failed": reason[:300]}


def clocks() -> str:
    """The processor's clock and power now, and the driver."""
    fields = "clocks.sm,power.draw,power.limit,driver_version"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def summary(rows: list[dict]) -> dict:
    """Over rounds: min, median and max of each number."""
    bad = [row for row in rows if "missing" in row or "failed" in row]
    if bad:
        return bad[0]
    return {
        key: {"min": min(v), "median": statistics.median(v), "max": max(v)}
        for key in rows[0]
        for v in [[row[key] for row in rows]]
    }


def main(rounds: int = 3, out: Path | None = None, only: tuple[str, str, str] | None = None) -> int:
    """Compare with the peers.

    Args:
        rounds: in which all providers take their turn.
        out: file for the results as JSON.
        only: one measurement in this process: provider, point, data.
    """
    if not torch.cuda.is_available():
        print("not measured: there is no NVIDIA GPU here", file=sys.stderr)
        return 0
    if only:
        name, point, data = only
        print(json.dumps(measure(name, POINTS[point], data)))
        return 0
    results = {}
    for point in POINTS:
        for data in ("random", "peaked"):
            rows: dict[str, list] = {name: [] for name in PROVIDERS}
            for turn in range(rounds):
                for name in list(PROVIDERS)[:: -1 if turn % 2 else 1]:
                    if not any("missing" in row for row in rows[name]):
                        rows[name].append(run_alone(name, point, data))
                        print(point, data, name, rows[name][-1], flush=True)
            results[f"{point} {data}"] = {n: summary(r) for n, r in rows.items()}
    results |= {"copy_gb_s": copy_rate(), "gpu": clocks(), "rounds": rounds}
    for point in POINTS:
        rows = results[f"{point} random"]
        bare, mine = rows["bare matrix product"], rows["r1lab"]
        if "forward_ms" in bare and "forward_ms" in mine:
            sol = bare["forward_ms"]["median"] / mine["forward_ms"]["median"]
            results[f"SOL of the forward pass, {point}"] = sol
    import triton

    results["machine"] = machine() | {"triton": triton.__version__, "cuda": torch.version.cuda}
    print(json.dumps(results, indent=1))
    if out:
        out.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(tyro.cli(main))
