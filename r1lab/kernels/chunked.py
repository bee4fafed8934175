"""Third rung: plain torch on one slab of the vocabulary after the other, never all logits.

Softmax over a long row needs only three running numbers: the largest logit so far, the sum of
exponentials below it, and (for the entropy) their first moment. So a slab of logits is computed,
folded into the running numbers, and overwritten by the next. The backward pass computes each slab
again: one more matrix product buys all that memory.

Every function here works on a wave of at most `ROWS` rows; `logprob.py` cuts the calls.
"""

import torch

from r1lab.kernels.reference import wide

ROWS = 1024
TILE_BYTES = 2 * 2**20  # logits held at once: a slab that stays in a processor's cache


def forward_rows(weight):
    """Rows of a wave, forward and backward."""
    return ROWS


backward_rows = forward_rows


def slabs(x, weight, ids, temperature):
    """Yield (columns, their weights, their scaled logits z, each row's chosen column in z (some
    column where it is elsewhere), is it there?), all logits in one buffer."""
    width = max(1, TILE_BYTES // (x.itemsize * max(1, len(x))))
    buffer = x.new_empty(len(x) * min(width, len(weight)))
    for start in range(0, len(weight), width):
        slab = weight[start : start + width].to(x.dtype)
        z = buffer[: len(x) * len(slab)].view(len(x), len(slab))
        torch.addmm(z, x, slab.T, beta=0, alpha=1 / temperature, out=z)
        at = (ids - start)[:, None]
        inside = (at >= 0) & (at < len(slab))
        yield slice(start, start + width), slab, z, at.clamp(0, len(slab) - 1), inside


def linear_forward(x, weight, ids, temperature, entropy):
    """Compute (logp, entropy, lse) [n] of x [n, hidden], weight [vocab, hidden], ids [n]."""
    x = x.to(wide(x.dtype))
    top = x.new_full([len(x)], torch.finfo(x.dtype).min)
    mass, moment, chosen = torch.zeros_like(top), torch.zeros_like(top), torch.zeros_like(top)
    for _, _, z, at, inside in slabs(x, weight, ids, temperature):
        chosen = torch.where(inside[:, 0], z.gather(1, at)[:, 0], chosen)
        top, mass, moment = fold(top, mass, moment, z, entropy)
    lse = top + mass.log()
    return (chosen - lse).clamp_(max=0), mass.log() - moment / mass, lse


def fold(top, mass, moment, z, entropy):
    """Fold a slab z [n, columns] into the running numbers [n]; overwrites z.

    mass = sum e^(z - top), moment = sum e^(z - top) (z - top). A larger top multiplies the old
    mass by r = e^(top - new) and moves the old moment by mass (top - new) before.
    """
    new = torch.maximum(top, z.amax(1))
    shift = top - new
    shrink = shift.exp()
    z.sub_(new[:, None])
    if not entropy:
        return new, shrink * mass + z.exp_().sum(1), moment
    e = z.exp()
    moment = shrink * (moment + mass * shift) + z.mul_(e).sum(1)
    return new, shrink * mass + e.sum(1), moment


def dlogits(x, weight, ids, lse, coefficients, temperature, entropy):
    """Yield (columns, their weights, dL/dlogits) of one slab after the other.

    dL/dlogits = target 1[id] - p (linear + log ln p), see `logprob.coefficients`.
    """
    target, linear, log = coefficients[:, :, None]
    for columns, slab, z, at, inside in slabs(x.to(wide(x.dtype)), weight, ids, temperature):
        log_p = z.sub_(lse[:, None])
        if entropy:
            p = log_p.exp()
            dz = log_p.mul_(log).add_(linear).mul_(p).neg_()
        else:
            dz = log_p.exp_().mul_(-linear)
        yield columns, slab, dz.scatter_add_(1, at, torch.where(inside, target, 0))
