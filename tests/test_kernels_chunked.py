"""The public function on a CPU: which rung it takes, what that gives, holds, and refuses."""

from unittest.mock import patch

import pytest
import torch

from r1lab.errors import InputError
from r1lab.kernels import linear_logprob, logprob
from r1lab.kernels.reference import plain_linear
from tests.kernel_checks import (
    Case, check_linear, check_peaked_target, check_waves_add_up, exact, inputs, load,
)  # fmt: skip
from tests.planted_kernel_bugs import copied

KERNELS = load()
HALF, BRAIN, DOUBLE = torch.float16, torch.bfloat16, torch.float64
ROWS = ("peaked", "low", "high", "offset", "ties", "flat")
CASES = [
    Case(),
    Case(n=1, vocab=7),
    Case(n=200, hidden=33, vocab=5_003, masked=0.3),
    Case(dtype=BRAIN, zero=0.5),
    Case(dtype=HALF, masked=0.3, zero=0.3, temperature=1.5),
    Case(dtype=DOUBLE),
    Case(masked=1.0),
    Case(zero=1.0),
    *(Case(n=9, rows=rows) for rows in ROWS),
    *(Case(n=9, grads=grads) for grads in ((True, False, False), (False, True, False),
                                           (False, False, True))),
]  # fmt: skip


@pytest.fixture
def small_slabs(monkeypatch):
    monkeypatch.setattr(KERNELS.chunked, "TILE_BYTES", 2**14)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_chunked_equals_float64(case, small_slabs):
    check_linear(KERNELS, "chunked", case)


@pytest.mark.parametrize("rows", ["normal", *ROWS])
def test_plain_torch_equals_float64(rows):
    x, w, ids = inputs(Case(rows=rows))
    largest = (x.double() @ w.double().T).abs().max() / 0.7
    for dtype, slack in ((torch.float32, 4e-6 * largest + 2e-4), (DOUBLE, 1e-12 * largest + 1e-12)):
        got = plain_linear(x.to(dtype), w.to(dtype), ids, 0.7)
        for value, right in zip(got, exact(x, w, ids, 0.7), strict=True):
            assert (value.double() - right).abs().max() <= slack


def test_waves_add_up(small_slabs):
    check_waves_add_up(KERNELS, "chunked")


def test_the_chosen_token_keeps_its_gradient_where_it_is_nearly_certain():
    check_peaked_target(KERNELS, "chunked")


def test_gradcheck(small_slabs, monkeypatch):
    monkeypatch.setattr(logprob, "PLAIN_BYTES", 0)
    monkeypatch.setattr(KERNELS.chunked, "TILE_BYTES", 8 * 3 * 10)
    x, w, ids = inputs(Case(n=3, hidden=5, vocab=37, dtype=DOUBLE))
    x, w = x.requires_grad_(), w.requires_grad_()
    asked = {"return_entropy": True, "return_lse": True, "temperature": 0.7}
    asked["mask"] = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda x, w: linear_logprob(x, w, ids, **asked), (x, w))


def test_16_bit_logits_are_never_rounded():
    """The error of log-probs stays that of fp32, not the 1e-2 of logits in 16 bits."""
    x, w, ids = inputs(Case(n=30, dtype=BRAIN))
    right = exact(x, w, ids, 1.0).logp
    rounded = ((x @ w.T).float().log_softmax(-1).gather(1, ids[:, None])[:, 0] - right).abs().max()
    error = (linear_logprob(x, w, ids).logp - right).abs().max()
    assert error < 2e-5 and rounded > 100 * error


def test_shapes_masks_and_results_of_the_public_function(monkeypatch):
    x, w, ids = inputs(Case(n=24))
    mask = torch.arange(24).view(2, 12) % 3 > 0
    x, ids = x.view(2, 12, -1).clone(), ids.view(2, 12).clone()
    x[~mask], ids[~mask] = torch.nan, -100
    results = []
    for bound in (logprob.PLAIN_BYTES, 0):
        monkeypatch.setattr(logprob, "PLAIN_BYTES", bound)
        out = linear_logprob(x, w, ids, mask=mask, return_entropy=True, return_lse=True)
        assert all(v.shape == (2, 12) and (v[~mask] == 0).all() for v in out)
        results.append(torch.stack(list(out)))
    assert torch.allclose(*results, atol=1e-5)
    bare = linear_logprob(x, w, ids, mask=mask)
    assert bare.entropy is None and bare.lse is None


def test_small_calls_take_plain_torch_and_larger_ones_hold_no_logits():
    x, w, ids = inputs(Case(n=30, hidden=8, vocab=1000))
    with patch.object(logprob, "linear_op", side_effect=AssertionError):
        linear_logprob(x, w, ids)
        with patch.object(logprob, "PLAIN_BYTES", 30 * 1000 * 4 - 1), pytest.raises(AssertionError):
            linear_logprob(x, w, ids)
        few = torch.arange(30) < 29  # masked rows do not count
        with patch.object(logprob, "PLAIN_BYTES", 29 * 1000 * 4):
            linear_logprob(x, w, ids, mask=few)


def test_backward_twice_and_no_gradient_of_a_gradient(monkeypatch):
    monkeypatch.setattr(logprob, "PLAIN_BYTES", 0)
    x, w, ids = inputs(Case(n=5))
    x = x.requires_grad_()
    total = linear_logprob(x, w, ids).logp.sum()
    first = torch.autograd.grad(total, x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(total, x, retain_graph=True)[0])
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(total, x, create_graph=True)


def test_callers_compile():
    x, w, ids = inputs(Case(n=6))
    mask = torch.arange(6) > 1
    leaves = [x.requires_grad_(), w.requires_grad_()]
    with copied() as kernels, patch.object(kernels.logprob, "PLAIN_BYTES", -1):

        def loss(x, w):
            out = kernels.public.linear_logprob(x, w, ids, mask=mask, return_entropy=True)
            return (out.logp * out.logp + 0.1 * out.entropy).sum()

        compiled = torch.compile(loss, backend="aot_eager")
        got = torch.autograd.grad(compiled(*leaves), leaves)
        right = torch.autograd.grad(loss(*leaves), leaves)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(got, right, strict=True))


def test_autocast_takes_a_weight_of_another_dtype():
    x, w, ids = inputs(Case(n=5))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = linear_logprob(x.bfloat16(), w, ids).logp
    assert torch.equal(mixed, linear_logprob(x.bfloat16(), w.bfloat16(), ids).logp)


def test_no_rows_at_all(monkeypatch):
    monkeypatch.setattr(logprob, "PLAIN_BYTES", -1)
    x, w = torch.zeros(0, 4, requires_grad=True), torch.zeros(5, 4, requires_grad=True)
    out = linear_logprob(x, w, torch.zeros(0, dtype=torch.long)).logp
    out.sum().backward()
    assert out.shape == (0,) and (w.grad == 0).all()


@pytest.fixture(scope="module")
def unchecked():
    """The kernels without the tests' own checks of shapes, as users have them."""
    with copied() as kernels:
        yield kernels


X, W, IDS = torch.zeros(3, 4), torch.zeros(7, 4), torch.zeros(3, dtype=torch.long)


@pytest.mark.parametrize(("x", "w", "ids", "options", "message"), [
    (X, W, IDS, {"temperature": 0.0}, "temperature must be positive"),
    (X, W, IDS, {"temperature": -1.0}, "temperature must be positive"),
    (X, W, IDS, {"temperature": float("nan")}, "temperature must be positive"),
    (X, W, IDS + 7, {}, "id 7 is outside the vocabulary of 7"),
    (X, W, IDS - 1, {}, "id -1 is outside the vocabulary"),
    (X, W, IDS[:2], {}, r"\(2, torch.int64\).* do not fit"),
    (X, W[:, :3], IDS, {}, r"\(7, 3, torch.float32\).* do not fit"),
    (X, W[0], IDS, {}, "do not fit"),
    (X, W, IDS, {"mask": torch.ones(2, dtype=torch.bool)}, "do not fit.* bool .rows"),
    (X, W.double(), IDS, {}, "cast one"),
    (X, W, IDS.float(), {}, "do not fit.* int64"),
    (X.long(), W.long(), IDS, {}, "floating-point"),
    (X, W, IDS, {"mask": torch.ones(3)}, "do not fit.* bool .rows"),
    (X, W.to("meta"), IDS, {}, "all on one device"),
    (X, W, IDS.to("meta"), {}, "all on one device"),
])  # fmt: skip
def test_bad_input_is_refused(x, w, ids, options, message, unchecked):
    for bound in (logprob.PLAIN_BYTES, -1):
        with patch.object(unchecked.logprob, "PLAIN_BYTES", bound):
            with pytest.raises(InputError, match=message):
                unchecked.public.linear_logprob(x, w, ids, **options)
