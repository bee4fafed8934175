"""The differentiable operator behind the public function, cut into waves of rows.

It works on the rows that count and on nothing else: forward on those inside the mask, backward on
those whose coefficients are not all zero (masked and clipped tokens, groups in which all rewards
are equal). Skipping them is exact. Rows are gathered wave by wave, so that neither a gathered copy
nor a slab of gradients of the logits ever grows with the number of rows.

`rung` is the module that computes a wave, `chunked` or `fused`.
"""

from collections.abc import Iterable
from types import ModuleType

import torch
from torch import Tensor

from r1lab.errors import InputError
from r1lab.kernels.reference import wide

# Summing dW over this many waves in 16 bits costs 3.9e-3 of its norm instead of 2.3e-3; more waves
# than that are summed in fp32.
WAVES_IN_16_BITS = 8


def coefficients(
    grads: tuple[Tensor | None, ...], mask: Tensor | None, entropy: Tensor, temperature: float
) -> Tensor:
    """[3, n]: (target, linear, log) of dL/dlogits = target 1[id] - p (linear + log ln p).

    From d logp/dz = 1[id] - p, d entropy/dz = -p (ln p + entropy), d lse/dz = p, z = logits / T.
    """
    logp, log, lse = (torch.zeros_like(entropy) if grad is None else grad for grad in grads)
    stacked = torch.stack([logp, logp - lse + log * entropy, log]) / temperature
    return stacked if mask is None else torch.where(mask, stacked, 0)


def waves(live: Tensor | None, count: int, size: int) -> list[slice] | list[Tensor]:
    """Rows in waves of at most `size`: slices where all rows live, else indices of those that do."""
    rows = None if live is None else live.nonzero()[:, 0]
    if rows is None or len(rows) == count:
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]
    return list(rows.split(size)) if len(rows) else []


def check_ids(ids: Tensor, mask: Tensor | None, vocab: int) -> None:
    """Refuse a live id outside the vocabulary: a gather there would read someone else's memory."""
    if ids.is_cuda and torch.cuda.is_current_stream_capturing():
        return  # a captured graph cannot look at values
    wrong = (ids < 0) | (ids >= vocab)
    wrong = wrong if mask is None else wrong & mask
    if bool(wrong.any()):
        raise InputError(
            f"id {int(ids[wrong][0])} is outside the vocabulary of {vocab} tokens; mask rows that "
            "have no token, and check that the tokenizer belongs to the model."
        )


def linear_forward(
    hidden: Tensor, weight: Tensor, ids: Tensor, mask: Tensor | None, temperature: float,
    entropy: bool, rung: ModuleType,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Compute (logp, entropy, lse) [n] of hidden [n, hidden] @ weight [vocab, hidden].T."""
    out = tuple(hidden.new_zeros(len(hidden), dtype=wide(hidden.dtype)) for _ in range(3))
    for rows in waves(mask, len(hidden), rung.forward_rows(weight)):
        values = rung.linear_forward(hidden[rows], weight, ids[rows], temperature, entropy)
        for column, value in zip(out, values, strict=True):
            column[rows] = value
    return out


def linear_backward(
    hidden: Tensor, weight: Tensor, ids: Tensor, lse: Tensor, coefficients: Tensor,
    temperature: float, entropy: bool, needed: tuple[bool, bool], rung: ModuleType,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Compute the gradients of hidden and weight, those that are needed."""
    live = (coefficients != 0).any(0)
    parts = waves(live, len(hidden), rung.backward_rows(weight))
    dhidden = torch.zeros_like(hidden) if needed[0] else None
    dweight = None
    if needed[1]:
        dtype = weight.dtype if len(parts) <= WAVES_IN_16_BITS else wide(weight.dtype)
        make = torch.empty if parts else torch.zeros
        dweight = make(weight.shape, dtype=dtype, device=weight.device)
    for wave, rows in enumerate(parts):
        x = hidden[rows]
        row_values = (ids[rows], lse[rows], coefficients[:, rows])
        # Nothing here keeps a wave's slabs: the next wave's would come on top of them.
        dx = multiply(
            rung.dlogits(x, weight, *row_values, temperature, entropy), x, dweight, wave == 0,
            needed[0],
        )  # fmt: skip
        if needed[0]:
            dhidden[rows] = dx.to(hidden.dtype)
    return dhidden, dweight.to(weight.dtype) if needed[1] else None


def multiply(
    slabs: Iterable[tuple[slice, Tensor, Tensor]], x: Tensor, dweight: Tensor | None, first: bool,
    need_x: bool,
) -> Tensor | None:  # fmt: skip
    """Turn a wave's dL/dlogits into x's gradient, and write (first wave) or add the weight's."""
    dx = None
    for columns, slab, dz in slabs:
        if need_x:
            dx = dz @ slab if dx is None else dx.addmm_(dz, slab)
        if dweight is not None:
            x = x.to(dz.dtype)
            add_product(dweight[columns], dz.T, x, first)
    return dx


def add_product(out: Tensor, a: Tensor, b: Tensor, first: bool) -> None:
    """Write a @ b into out for the first wave (no zeros to fill and read), add it afterwards.

    A GPU multiplies in the dtype of a and b: an fp32 product of 16-bit inputs is many times slower.
    """
    beta = 0 if first else 1
    if out.itemsize < a.itemsize:
        product = a @ b
        out.copy_(product if first else out + product)
    elif out.is_cuda and out.dtype != a.dtype:
        torch.addmm(out, a, b, out_dtype=out.dtype, beta=beta, out=out)
    else:
        torch.addmm(out, a.to(out.dtype), b.to(out.dtype), beta=beta, out=out)


class LinearLogProb(torch.autograd.Function):
    """Log-probs whose backward pass computes the logits again instead of keeping them."""

    @staticmethod
    def forward(ctx, hidden, weight, ids, mask, temperature, entropy, rung):
        values = linear_forward(hidden, weight, ids, mask, temperature, entropy, rung)
        ctx.save_for_backward(hidden, weight, ids, mask, *values[1:])
        ctx.temperature, ctx.rung = temperature, rung
        ctx.set_materialize_grads(False)
        return values

    @staticmethod
    def backward(ctx, *grads):
        if torch.is_grad_enabled():
            raise RuntimeError(
                "log-probs are differentiable once, and create_graph asks for more; leave it out."
            )
        hidden, weight, ids, mask, entropy, lse = ctx.saved_tensors
        if all(grad is None for grad in grads):
            return (None,) * 7
        gradients = linear_backward(
            hidden, weight, ids, lse, coefficients(grads, mask, entropy, ctx.temperature),
            ctx.temperature, grads[1] is not None, ctx.needs_input_grad[:2], ctx.rung,
        )  # fmt: skip
        return *gradients, None, None, None, None, None


linear_op = LinearLogProb.apply
