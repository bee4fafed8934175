"""What every rung of the log-prob ladder has to do; each check takes the package to be checked.

Tests run them on r1lab.kernels, and `tests.planted_kernel_bugs` on copies with a bug planted.
"""

import importlib
import importlib.util
import math
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import torch

from r1lab.kernels.reference import LogProbs

MODULES = ("logprob", "reference", "chunked", "fused")
RELATIVE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 1.5e-3, torch.bfloat16: 8e-3}


def load(package: str = "r1lab.kernels") -> SimpleNamespace:
    """The modules of a package of kernels, and the package itself as `public`."""
    names = MODULES if importlib.util.find_spec("triton") else MODULES[:3]
    modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
    return SimpleNamespace(public=importlib.import_module(package), **modules)


@dataclass(frozen=True)
class Case:
    """One call. `rows` says how its logits are distributed, `masked` the share of masked rows."""

    n: int = 37
    hidden: int = 48
    vocab: int = 1003
    dtype: torch.dtype = torch.float32
    temperature: float = 0.7
    rows: str = "normal"
    masked: float = 0.0
    zero: float = 0.0  # share of rows without incoming gradient
    grads: tuple[bool, bool, bool] = (True, True, True)  # of logp, entropy, lse
    device: str = "cpu"

    def __str__(self) -> str:
        changed = {k: v for k, v in vars(self).items() if v != getattr(Case, k)}
        words = [f"{k}={str(v).replace('torch.', '')}" for k, v in changed.items()]
        return " ".join(words) or "usual"


def inputs(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(hidden, weight, ids), seeded."""
    g = torch.Generator().manual_seed(case.n * 7919 + case.vocab)
    x = torch.randn(case.n, case.hidden, generator=g)
    w = torch.randn(case.vocab, case.hidden, generator=g) * 2 / math.sqrt(case.hidden)
    ids = torch.randint(0, case.vocab, (case.n,), generator=g)
    if case.n > 2:
        ids[0], ids[1] = 0, case.vocab - 1
    if case.rows == "peaked":  # the chosen token's probability is 0.999 and more
        w = w / w.norm(dim=1, keepdim=True)
        x = w[ids] * 14 * case.temperature + 0.01 * x
    shift = {"low": -400.0, "high": 400.0, "offset": 40.0}.get(case.rows)
    if shift is not None:  # one number in common to all logits
        x[:, 0], w[:, 0] = 1.0, shift
    if case.rows == "ties":
        w = w[:1].expand(case.vocab, -1).clone()
    if case.rows == "flat":
        x = x * 0
    x, w, ids = (tensor.to(case.device) for tensor in (x, w, ids))
    return x.to(case.dtype), w.to(case.dtype), ids


def masks(case: Case) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The mask, and signed incoming gradients for each of the three results."""
    g = torch.Generator().manual_seed(case.n)
    mask = torch.ones(case.n, dtype=torch.bool)
    if case.masked:
        mask = torch.rand(case.n, generator=g) >= case.masked
    live = torch.rand(case.n, generator=g) >= case.zero
    grads = [torch.randn(case.n, generator=g).double() * live * asked for asked in case.grads]
    return mask.to(case.device), [grad.to(case.device) for grad in grads]


def every(ids: torch.Tensor) -> torch.Tensor:
    """The mask of a call in which all rows count."""
    return torch.ones_like(ids, dtype=torch.bool)


def exact(x: torch.Tensor, w: torch.Tensor, ids: torch.Tensor, temperature: float) -> LogProbs:
    """The truth in float64, by formulas that the package does not use."""
    scaled = x.double() @ w.double().T / temperature
    log_probs = scaled.log_softmax(-1)
    terms = log_probs.exp() * log_probs
    logp = log_probs.gather(-1, ids.long()[:, None])[:, 0]
    return LogProbs(logp, -terms.sum(-1), scaled.logsumexp(-1))


def results(op, case: Case, tensors: list, ids, rung: ModuleType) -> tuple[list, list]:
    """(logp, entropy, lse) of an operator and the gradients of its floating-point inputs."""
    mask, grads = masks(case)
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = op(*leaves, ids, mask, case.temperature, True, rung)
    asked = [i for i in range(3) if case.grads[i]]
    gradients = torch.autograd.grad(
        [out[i] for i in asked], leaves, [grads[i].to(out[i].dtype) for i in asked]
    )
    return [x.detach() for x in out], list(gradients)


def truth(case: Case, tensors: list, ids) -> tuple[list, list]:
    """The same in float64."""
    live, grads = masks(case)
    leaves = [x.double().requires_grad_() for x in tensors]
    out = exact(*leaves, ids, case.temperature)
    total = sum((v * g)[live].sum() for v, g in zip(out, grads, strict=True))
    gradients = torch.autograd.grad(total, leaves)
    return [torch.where(live, x.detach(), 0.0) for x in out], list(gradients)


def compare(case: Case, got: tuple, right: tuple, largest: float) -> None:
    """Values within the absolute tolerances of their kind, gradients by their relative norm."""
    tight = case.dtype == torch.float64
    bound = 4e-6 * largest + 2e-5
    for name, a, b in zip(("logp", "entropy", "lse"), got[0], right[0], strict=True):
        limit = 1e-9 if tight else bound + (2e-4 if name == "entropy" else 0)
        assert a.dtype == (torch.float64 if tight else torch.float32)
        error = (a.double() - b).abs().max().item() if len(a) else 0.0
        assert error <= limit, f"{name} is off by {error:.1e}, allowed are {limit:.1e} ({case})"
    assert (got[0][0] <= 0).all(), "a log-probability is above 0"
    # Rounding of logits of size 400 moves p by that much, and so its gradient.
    slack = RELATIVE[case.dtype] + (0 if tight else 3e-7 * largest)
    for name, a, b in zip(("first", "second"), got[1], right[1], strict=False):
        assert a.dtype == case.dtype and a.shape == b.shape
        error = ((a.double() - b).norm() / b.norm().clamp(min=1e-12)).item() if b.numel() else 0.0
        assert error <= slack, f"{name} gradient is off by {error:.1e} of {slack:.1e} ({case})"


def check_linear(kernels: SimpleNamespace, rung: str, case: Case) -> None:
    """Values and gradients from hidden states equal the float64 reference's."""
    x, w, ids = inputs(case)
    module = getattr(kernels, rung)
    with guard_bands():
        got = results(kernels.logprob.linear_op, case, [x, w], ids, module)
        bare = kernels.logprob.linear_op(x, w, ids, masks(case)[0], case.temperature, False, module)
    right = truth(case, [x, w], ids)
    largest = (x.double() @ w.double().T).abs().max().item() / case.temperature if case.n else 0.0
    compare(case, got, right, largest)
    compare(case, ([bare[0], got[0][1], bare[2]], []), right, largest)


def check_peaked_target(kernels: SimpleNamespace, rung: str) -> None:
    """The chosen token's own gradient, 1 - p, is right to 1/256 where p is 0.999.

    With the unit matrix for a head the hidden states are the logits, and so are their gradients.
    """
    g = torch.Generator().manual_seed(0)
    z = torch.randn(6, 128, generator=g)
    ids = torch.arange(6) * 20
    z[torch.arange(6), ids] = 0.0
    rest = z.exp().sum(1) - 1
    z[torch.arange(6), ids] = (rest * 999).log()
    leaf, head = z.clone().requires_grad_(), torch.eye(128)
    logp, _, _ = kernels.logprob.linear_op(leaf, head, ids, every(ids), 1.0, False, getattr(kernels, rung))
    got = torch.autograd.grad(logp.sum(), leaf)[0][torch.arange(6), ids].double()
    right = 1 - exact(z, head, ids, 1.0).logp.exp()
    assert ((got - right).abs() <= right / 256).all()


def check_row_alone_and_in_a_batch(
    kernels: SimpleNamespace, exact: bool = True, case: Case = Case(n=130, hidden=16, vocab=2_500)
) -> None:
    """A row has the same bits alone, among others, and in another order; then the ratio is 1.

    With `exact`, inputs are multiples of 1/8, whose products are summed without rounding: the
    processor's matrix product, used in place of the GPU's, rounds by a row's place in a tile.
    """
    x, w, ids = inputs(case)
    if exact:
        x, w = (x * 8).round() / 8, (w * 8).round() / 8

    def run(rows):
        return kernels.logprob.linear_op(x[rows], w, ids[rows], every(ids[rows]), 0.7, True, kernels.fused)

    whole = run(slice(None))
    for size in (1, 127, 128, 129):
        parts = zip(whole, run(slice(size)), strict=True)
        assert all(torch.equal(a[:size], b) for a, b in parts), size
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    mixed = run(order)
    assert all(torch.equal(a[order], b) for a, b in zip(whole, mixed, strict=True))
    assert ((mixed[0] - whole[0][order]).exp() == 1.0).all()


def check_waves_add_up(kernels: SimpleNamespace, rung: str) -> None:
    """Cut into several waves, a call gives the same values and gradients."""
    module = getattr(kernels, rung)
    rows = lambda weight: 16  # noqa: E731
    with patch.object(module, "forward_rows", rows), patch.object(module, "backward_rows", rows):
        check_linear(kernels, rung, Case(n=61, masked=0.3))
        with patch.object(kernels.logprob, "WAVES_IN_16_BITS", 2):
            check_linear(kernels, rung, Case(n=61, dtype=torch.float16, zero=0.3))


@contextmanager
def guard_bands(width: int = 64):
    """Between NaNs, and checked afterwards: every buffer that is made inside."""
    made: list[torch.Tensor] = []

    def guarded(make):
        def wrapper(*args, **kwargs):
            right = make(*args, **kwargs)
            if not right.is_floating_point() or right.device.type == "meta":
                return right
            kind = {"dtype": right.dtype, "device": right.device}
            band = torch.full((right.numel() + 2 * width,), math.nan, **kind)
            inner = band[width : width + right.numel()].view(right.shape)
            made.append(band)
            return inner.zero_() if "zeros" in make.__name__ else inner  # "empty" holds NaNs

        return wrapper

    with ExitStack() as stack:
        for owner, name in ((torch, "empty_like"), (torch.Tensor, "new_empty"), (torch.Tensor, "new_zeros")):
            stack.enter_context(patch.object(owner, name, guarded(getattr(owner, name))))
        yield
    for band in made:
        edges = torch.cat([band[:width], band[-width:]])
        assert edges.isnan().all(), "something was written outside a buffer"
