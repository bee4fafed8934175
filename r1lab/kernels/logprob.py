"""Log-probabilities of chosen tokens: the public function, and the operator behind it.

The ladder, each rung equal to the one below within a tested tolerance:

1. `reference.plain_linear` in float64, the truth.
2. `reference.plain_linear`: plain torch, holds all logits. Small calls on a CPU.
3. `chunked`: a slab of the vocabulary at a time. Large calls on a CPU, and everything that has no
   kernel here (GPUs older than Ampere, AMD, Apple; float64; rows of an odd number of bytes).
4. `fused`: Triton kernels. NVIDIA GPUs from compute capability 8.0 on.

The last two are modules, a `rung` below. They compute a wave of rows; the operator works on the
rows that count and on nothing else: forward on those inside the mask, backward on those whose
coefficients are not all zero (masked and clipped tokens, groups in which all rewards are equal).
Skipping them is exact. Rows are gathered wave by wave, so that neither a gathered copy nor a slab
of gradients of the logits ever grows with the number of rows.
"""

import importlib.util
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from r1lab.errors import InputError
from r1lab.kernels import chunked
from r1lab.kernels.reference import LogProbs, plain_linear, wide

# Calls on a CPU whose fp32 logits take no more than this use plain torch: they fit the caches of
# one processor, and every stored run of the small world was computed so, bit for bit.
PLAIN_BYTES = 16 * 2**20
# Summing dW over this many waves in 16 bits costs 3.9e-3 of its norm instead of 2.3e-3; more waves
# than that are summed in fp32.
WAVES_IN_16_BITS = 8


def linear_logprob(
    hidden: Float[Tensor, "*batch hidden"],
    weight: Float[Tensor, "vocab hidden"],
    ids: Int[Tensor, "*batch"],
    *,
    temperature: float = 1.0,
    mask: Bool[Tensor, "*batch"] | None = None,
    return_entropy: bool = False,
    return_lse: bool = False,
) -> LogProbs:
    """Compute log softmax(hidden @ weight.T / temperature)[ids], never holding all the logits.

    All three results are differentiable, once, by the incoming gradient of each token. Rows outside
    `mask` cost nothing and get zero, whatever they hold; rows whose incoming gradients are zero
    cost nothing in the backward pass. The caller passes ids already shifted: ids[i] is the token
    that follows hidden[i]. Computing the logits twice makes forward and backward four matrix
    products instead of three.

    Args:
        hidden, weight: of one dtype and device. Under autocast both are cast to its dtype.
        mask: which rows to compute; all by default.
        return_entropy: of the whole distribution, nats.
        return_lse: ln sum exp(logits / temperature).

    Raises:
        InputError: shapes, dtypes or devices that do not fit each other, a temperature that is not
            positive, a live id outside the vocabulary.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    live = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    check(hidden, weight, ids, live, temperature)
    rows, chosen, inside = hidden.reshape(-1, hidden.shape[-1]), ids.flatten(), live.flatten()
    with torch.autocast(device, enabled=False):  # sums stay in fp32
        if device == "cpu" and live.sum() * len(weight) * torch.float32.itemsize <= PLAIN_BYTES:
            result = plain_linear(rows[inside], weight, chosen[inside], temperature)
            empty = torch.zeros_like(inside, dtype=result.logp.dtype)
            values = [empty.masked_scatter(inside, value) for value in result]
        else:
            rung = pick(rows, weight)
            values = linear_op(rows, weight, chosen, inside, temperature, return_entropy, rung)
    logp, entropy, lse = (value.view(ids.shape) for value in values)
    return LogProbs(logp, entropy if return_entropy else None, lse if return_lse else None)


def check(hidden, weight, ids, mask, temperature):
    """Refuse what no rung can compute, before anything is launched."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InputError(f"temperature must be positive, not {temperature}; for argmax take ids.")
    right = (
        hidden.device == weight.device == ids.device == mask.device
        and ids.shape == mask.shape == hidden.shape[:-1]
        and weight.shape[1:] == hidden.shape[-1:]
        and (ids.dtype, mask.dtype) == (torch.int64, torch.bool)
        and hidden.is_floating_point()
        and hidden.dtype == weight.dtype
    )
    if not right:
        given = [(*tensor.shape, tensor.dtype) for tensor in (hidden, weight, ids, mask)]
        raise InputError(
            f"hidden states, weight, ids and mask {given} do not fit; give [rows, hidden] and "
            "[vocab, hidden] of one floating-point dtype (cast one, or use autocast), int64 [rows] "
            "and, if any, bool [rows], all on one device."
        )
    wrong = mask & ((ids < 0) | (ids >= len(weight)))
    if wrong.any():  # a gather there would read someone else's memory
        raise InputError(
            f"id {int(ids[wrong][0])} is outside the vocabulary of {len(weight)} tokens; mask rows "
            "that have no token, and check that the tokenizer belongs to the model."
        )


def pick(x, weight):
    """Pick the rung for a call that is not small: Triton where its kernels run, else chunked."""
    aligned = (x.shape[1] * x.itemsize | weight.data_ptr()) % 16 == 0  # as descriptors need it
    nvidia = x.is_cuda and torch.version.hip is None and importlib.util.find_spec("triton")
    if nvidia and aligned and x.dtype != torch.float64:
        if torch.cuda.get_device_capability(x.device) >= (8, 0):
            from r1lab.kernels import fused  # needs triton, which not all systems have

            return fused
    return chunked


def coefficients(grads, mask, entropy, temperature):
    """[3, n]: (target, linear, log) of dL/dlogits = target 1[id] - p (linear + log ln p).

    From d logp/dz = 1[id] - p, d entropy/dz = -p (ln p + entropy), d lse/dz = p, z = logits / T.
    """
    logp, log, lse = (torch.zeros_like(entropy) if grad is None else grad for grad in grads)
    stacked = torch.stack([logp, logp - lse + log * entropy, log]) / temperature
    return torch.where(mask, stacked, 0)


def waves(live, size):
    """Rows in waves of at most `size`: slices where all rows live, else indices of those that do."""
    rows, count = live.nonzero()[:, 0], len(live)
    if len(rows) == count:
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]
    return list(rows.split(size)) if len(rows) else []


def multiply(slabs, x, dweight, first):
    """Turn a wave's dL/dlogits into x's gradient, and write (first wave) or add the weight's."""
    dx = None
    for columns, slab, dz in slabs:
        dx = dz @ slab if dx is None else dx.addmm_(dz, slab)
        if dweight is not None:
            add_product(dweight[columns], dz.T, x.to(dz.dtype), first)
    return dx


def add_product(out, a, b, first):
    """Write a @ b into out for the first wave (no zeros to fill and read), add it afterwards.

    A GPU multiplies in the dtype of a and b: an fp32 product of 16-bit inputs is many times slower.
    """
    beta = 0 if first else 1
    if out.dtype == a.dtype:
        torch.addmm(out, a, b, beta=beta, out=out)
    elif out.is_cuda and out.itemsize > a.itemsize:
        torch.addmm(out, a, b, out_dtype=out.dtype, beta=beta, out=out)
    else:
        product = a @ b
        out.copy_(product if first else out + product)


class LinearLogProb(torch.autograd.Function):
    """Log-probs whose backward pass computes the logits again instead of keeping them."""

    @staticmethod
    def forward(ctx, hidden, weight, ids, mask, temperature, entropy, rung):
        """Compute (logp, entropy, lse) [n] of hidden [n, hidden] @ weight [vocab, hidden].T."""
        values = tuple(hidden.new_zeros(len(hidden), dtype=wide(hidden.dtype)) for _ in range(3))
        for rows in waves(mask, rung.forward_rows(weight)):
            parts = rung.linear_forward(hidden[rows], weight, ids[rows], temperature, entropy)
            for column, value in zip(values, parts):
                column[rows] = value
        ctx.save_for_backward(hidden, weight, ids, mask, *values[1:])
        ctx.temperature, ctx.rung = temperature, rung
        ctx.set_materialize_grads(False)
        return values

    @staticmethod
    def backward(ctx, *grads):
        """Compute the gradient of hidden, and the weight's unless it is frozen."""
        if torch.is_grad_enabled():
            raise RuntimeError("log-probs are differentiable once; leave create_graph out.")
        hidden, weight, ids, mask, entropy, lse = ctx.saved_tensors
        factors = coefficients(grads, mask, entropy, ctx.temperature)
        parts = waves((factors != 0).any(0), ctx.rung.backward_rows(weight))
        dhidden, dweight = torch.zeros_like(hidden), None
        if ctx.needs_input_grad[1]:
            dtype = weight.dtype if len(parts) <= WAVES_IN_16_BITS else wide(weight.dtype)
            make = torch.empty_like if parts else torch.zeros_like
            dweight = make(weight, dtype=dtype)
        for wave, rows in enumerate(parts):
            x, of_rows = hidden[rows], (ids[rows], lse[rows], factors[:, rows])
            # Nothing here keeps a wave's slabs: the next wave's would come on top of them.
            dx = multiply(
                ctx.rung.dlogits(x, weight, *of_rows, ctx.temperature, grads[1] is not None),
                x, dweight, wave == 0,
            )  # fmt: skip
            dhidden[rows] = dx.to(hidden.dtype)
        return dhidden, dweight if dweight is None else dweight.to(weight.dtype), *(None,) * 5


linear_op = LinearLogProb.apply
