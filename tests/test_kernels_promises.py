"""What is promised of the kernels on a GPU, as far as it can be proved without one."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernel_checks import load
from tests.planted_kernel_bugs import BUGS, verdict

pytest.importorskip("triton", reason="Triton is not built for this system")
KERNELS = load()
MIB = 2**20
VOCAB, ROWS = 151_936, 8_192
HIDDEN_SIZES = [896, 1536, 3584]  # Qwen2.5 0.5B, 1.5B and 7B


class Allocations(TorchDispatchMode):
    """The most bytes that tensors made inside held at once."""

    def __init__(self):
        super().__init__()
        self.live: dict = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        known = {x.untyped_storage()._cdata for x in args if isinstance(x, torch.Tensor)}
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in known:
                storage = x.untyped_storage()
                self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.live = {k: (ref, size) for k, (ref, size) in self.live.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return out


class NotLaunched:
    """In the place of a kernel: takes a grid and arguments, does nothing and keeps nothing."""

    def __getitem__(self, grid):
        return lambda *args, **options: None


def allocations(rung: str, hidden: int, masked: bool, rows: int = ROWS) -> tuple[int, int]:
    """The peaks of a forward and a backward pass of real size, beyond what they return: on a device
    without memory, without running kernels."""
    make = {"dtype": torch.bfloat16, "device": "meta", "requires_grad": True}
    x, w = torch.empty(rows, hidden, **make), torch.empty(VOCAB, hidden, **make)
    ids = torch.empty(rows, dtype=torch.long, device="meta")

    def waves(live, size):  # that all rows live cannot be seen there
        every = torch.empty(rows, dtype=torch.long, device="meta")
        slices = [slice(i, min(i + size, rows)) for i in range(0, rows, size)]
        return list(every.split(size)) if masked else slices

    with ExitStack() as stack:
        stack.enter_context(patch.object(KERNELS.logprob, "waves", waves))
        for name in ("linear_statistics", "combine", "linear_dlogits"):
            stack.enter_context(patch.object(KERNELS.fused, name, NotLaunched()))
        mask = torch.ones_like(ids, dtype=torch.bool)
        with Allocations() as forward:
            out = KERNELS.logprob.linear_op(x, w, ids, mask, 1.0, True, getattr(KERNELS, rung))
        with Allocations() as backward:
            gradients = torch.autograd.grad(out, [x, w], [torch.empty_like(v) for v in out])
    assert gradients[0].shape == x.shape and gradients[1].shape == w.shape
    return forward.peak, backward.peak - 2 * hidden * (rows + VOCAB)


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked rows"])
@pytest.mark.parametrize("hidden", HIDDEN_SIZES)
def test_memory_of_the_triton_path(hidden, masked):
    forward, backward = allocations("fused", hidden, masked)
    assert forward <= 16 * MIB, f"{forward / MIB:.1f} MiB"
    assert backward <= 850 * MIB, f"{backward / MIB:.1f} MiB"


def test_the_chunked_path_never_holds_all_logits():
    for peak in allocations("chunked", 896, masked=True, rows=1500):
        assert peak <= 32 * MIB, f"{peak / MIB:.1f} MiB"


def test_allocations_are_seen():
    with Allocations() as seen:
        a = torch.empty(1000, device="meta")
        b = a * 2
        del a
        b = b + 1
        view = b[:10]
    assert seen.peak == 8000 and len(view) == 10


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict:
    """Every shipped configuration compiled for an H100, in a process without the interpreter."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    done = subprocess.run(
        [sys.executable, "-m", "tests.compile_kernels", "--json"], capture_output=True, text=True,
        env=environment, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_compiled_kernels_fit_the_chip(compiled):
    for name, row in compiled.items():
        assert row["spilled"] <= 64, f"{name}: {row['spilled']} bytes spilled to memory"
        assert row["shared"] <= 227 * 1024, f"{name}: {row['shared']} bytes of shared memory"
        assert row[".f64"] == 0, f"{name} computes in float64"
        assert row[".tf32"] == 0, f"{name} rounds its inputs to TF32"


def test_compiled_products_run_on_tensor_cores_and_by_descriptors(compiled):
    products = {k: v for k, v in compiled.items() if k.startswith("linear") and "fp32" not in k}
    assert products
    for name, row in products.items():
        instruction = "wgmma.mma_async" if "sm_90a" in name else "mma.sync"
        assert row[instruction] > 0, f"{name} does not use tensor cores"
        assert (row["cp.async.bulk.tensor"] > 0) == ("sm_90a" in name), name


def test_one_exponential_for_each_logit(compiled):
    """128 x 256 logits and 256 threads are 128 exponentials a thread, and two to rescale."""
    assert compiled["linear_statistics bf16 sm_90a"]["ex2.approx"] <= 132
    assert compiled["linear_dlogits bf16 sm_90a"]["ex2.approx"] == 128


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_killed(bug):
    assert verdict(bug), "no check noticed this bug"
