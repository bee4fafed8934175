"""The full matrix of the Triton kernels on an NVIDIA GPU: `make test-gpu`."""

import threading
from dataclasses import replace

import pytest
import torch

from r1lab.kernels import linear_logprob
from tests.kernel_checks import Case, check_linear, check_row_alone_and_in_a_batch, exact, inputs, load

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here"),
]
BRAIN, HALF, FULL = torch.bfloat16, torch.float16, torch.float32
USUAL = Case(n=129, hidden=896, vocab=5003, dtype=BRAIN, device="cuda")
DISTRIBUTIONS = ("peaked", "low", "high", "offset", "ties", "flat")
CASES = [
    *(replace(USUAL, n=n) for n in (1, 2, 7, 127, 128, 1937)),
    *(replace(USUAL, hidden=h) for h in (16, 48, 64, 72, 1536, 2048, 3584)),
    *(replace(USUAL, vocab=v) for v in (7, 32, 255, 256, 257, 1003, 32_000, 50_257, 128_256,
                                        129_920, 151_936, 152_064)),
    *(replace(USUAL, dtype=d, hidden=h) for d in (HALF, FULL) for h in (72, 896)),
    *(replace(USUAL, temperature=t) for t in (0.1, 0.6, 1.0, 1.5)),
    *(replace(USUAL, masked=m, zero=z) for m in (0.0, 0.3, 1.0) for z in (0.0, 0.5, 1.0)),
    *(replace(USUAL, rows=r, dtype=d) for r in DISTRIBUTIONS for d in (BRAIN, FULL)),
    *(replace(USUAL, grads=g) for g in ((True, False, False), (False, True, False),
                                        (False, False, True))),
    replace(USUAL, n=8192, hidden=1536, vocab=20_011),  # several waves
]  # fmt: skip


@pytest.fixture(scope="module")
def kernels():
    return load()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_from_hidden_states(case, kernels):
    check_linear(kernels, "fused", case)


@pytest.mark.parametrize("dtype", [BRAIN, HALF, FULL])
def test_a_row_has_the_same_bits_in_every_batch(dtype, kernels):
    case = Case(n=1937, hidden=1536, vocab=151_936, dtype=dtype, device="cuda")
    check_row_alone_and_in_a_batch(kernels, exact=False, case=case)


def test_ten_runs_give_the_same_bits():
    x, w, ids = inputs(replace(USUAL, n=3000))
    runs = []
    for _ in range(10):
        leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
        logp = linear_logprob(*leaves, ids).logp
        runs.append([logp, *torch.autograd.grad(logp.sum(), leaves)])
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("hidden", [1536, 3584])
def test_measured_memory_keeps_the_promise(hidden):
    x, w, ids = inputs(Case(n=8192, hidden=hidden, vocab=151_936, dtype=BRAIN, device="cuda"))
    x, w = x.requires_grad_(), w.requires_grad_()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    logp = linear_logprob(x, w, ids).logp
    forward = torch.cuda.max_memory_allocated() - before
    torch.cuda.reset_peak_memory_stats()
    gradients = torch.autograd.grad(logp, [x, w], torch.randn_like(logp))
    returned = sum(g.numel() * g.itemsize for g in gradients)
    backward = torch.cuda.max_memory_allocated() - before - returned
    assert forward <= 16 * 2**20 and backward <= 850 * 2**20


def test_more_than_two_billion_logits():
    x, w, ids = inputs(Case(n=16_384, hidden=64, vocab=151_936, dtype=BRAIN, device="cuda"))
    rows = torch.tensor([0, 14_134, 16_383], device="cuda")
    right = exact(x[rows], w, ids[rows], 1.0).logp
    assert (linear_logprob(x, w, ids).logp[rows] - right).abs().max() < 1e-4


def test_rows_that_no_descriptor_takes_are_computed_in_torch():
    x, w, ids = inputs(replace(USUAL, hidden=70))
    assert (linear_logprob(x, w, ids).logp - exact(x, w, ids, 1.0).logp).abs().max() < 1e-4


def test_another_thread_and_a_compiled_caller():
    x, w, ids = inputs(USUAL)
    right, found = linear_logprob(x, w, ids).logp, []
    thread = threading.Thread(target=lambda: found.append(linear_logprob(x, w, ids).logp))
    thread.start()
    thread.join()
    compiled = torch.compile(lambda x: linear_logprob(x, w, ids).logp * 2)
    assert torch.equal(found[0], right) and torch.allclose(compiled(x), right * 2)
