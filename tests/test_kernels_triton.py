"""The Triton kernels against float64, run by Triton's interpreter on the CPU."""

import pytest
import torch

from tests.kernel_checks import (
    Case, check_linear, check_peaked_target, check_row_alone_and_in_a_batch,
    check_waves_add_up, every, inputs, load,
)  # fmt: skip

pytest.importorskip("triton", reason="Triton is not built for this system")
if torch.cuda.is_available():
    pytest.skip("a GPU is here: make test-gpu runs these on it", allow_module_level=True)

# Columns past the vocabulary may overflow before they are masked off.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
KERNELS = load()
FUSED = KERNELS.fused
HALF, BRAIN, DOUBLE = torch.float16, torch.bfloat16, torch.float64

LINEAR = [
    Case(),
    Case(n=1),
    Case(n=2, hidden=16, vocab=7),
    Case(n=129, hidden=64, vocab=256),
    Case(n=130, hidden=72, vocab=257, dtype=HALF),
    Case(n=7, hidden=36, vocab=255, masked=0.3),
    Case(n=128, hidden=40, vocab=32),
    Case(n=5, hidden=896, vocab=300, dtype=BRAIN),
    Case(n=37, dtype=BRAIN, masked=0.3, zero=0.5),
    Case(n=37, dtype=HALF, temperature=0.1),
    Case(n=6, hidden=16, vocab=2_601, temperature=1.5),
    Case(n=5, hidden=16, vocab=41, dtype=DOUBLE),
    Case(n=4, masked=1.0),
    Case(n=9, zero=1.0),
    *(Case(n=9, rows=rows) for rows in ("peaked", "low", "high", "offset", "ties", "flat")),
    *(Case(n=9, grads=grads) for grads in ((True, False, False), (False, True, False),
                                           (False, False, True), (True, True, False))),
]  # fmt: skip

@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_from_hidden_states(case):
    check_linear(KERNELS, "fused", case)


def test_without_entropy_the_other_results_are_the_same():
    x, w, ids = inputs(Case())
    with_it, without = (FUSED.linear_forward(x, w, ids, 0.7, entropy) for entropy in (True, False))
    assert torch.allclose(with_it[0], without[0], atol=1e-5)
    assert torch.allclose(with_it[2], without[2], atol=1e-5)


def test_the_chosen_token_keeps_its_gradient_where_it_is_nearly_certain():
    check_peaked_target(KERNELS, "fused")


def test_a_row_has_the_same_bits_in_every_batch():
    check_row_alone_and_in_a_batch(KERNELS)


def test_waves_add_up():
    check_waves_add_up(KERNELS, "fused")


def test_gradcheck():
    """Autograd against finite differences, in float64."""
    x, w, ids = inputs(Case(n=3, hidden=8, vocab=37, dtype=DOUBLE))
    x, w = x.requires_grad_(), w.requires_grad_()
    mask = torch.tensor([True, False, True])

    def linear(x, w):
        return KERNELS.logprob.linear_op(x, w, ids, mask, 0.7, True, FUSED)

    assert torch.autograd.gradcheck(linear, (x, w), fast_mode=True, atol=1e-6)


def test_frozen_and_tied_weights():
    x, w, ids = inputs(Case(n=5))

    def backward(x, w):
        KERNELS.logprob.linear_op(x, w, ids, every(ids), 1.0, False, FUSED)[0].sum().backward()

    only_x, only_w, both = (leaf.clone().requires_grad_() for leaf in (x, w, w))
    backward(only_x, w)
    backward(x, only_w)
    backward(both[ids] + 0.0, both)  # an embedding that is the head as well
    assert only_x.grad.shape == x.shape and only_w.grad.shape == w.shape
    right = w.double().requires_grad_()
    (right[ids] @ right.T).log_softmax(-1).gather(1, ids[:, None]).sum().backward()
    assert torch.allclose(both.grad.double(), right.grad, atol=1e-4)
