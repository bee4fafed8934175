"""First rungs of the ladder: plain torch, which in float64 is the truth.

It holds all logits. Every other implementation is measured against the truth; small calls on a CPU
use plain torch, where the logits fit a cache and nothing could be saved.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class LogProbs(NamedTuple):
    """In the shape of the ids, nats, zero where masked out; fp32 (float64 for float64 inputs)."""

    logp: Float[Tensor, "..."]
    entropy: Float[Tensor, "..."] | None = None
    lse: Float[Tensor, "..."] | None = None


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums over inputs of this dtype are kept in: at least fp32."""
    return torch.promote_types(dtype, torch.float32)


def plain_linear(
    hidden: Float[Tensor, "n hidden"],
    weight: Float[Tensor, "vocab hidden"],
    ids: Int[Tensor, " n"],
    temperature: float = 1.0,
    entropy: bool = True,
) -> LogProbs:
    """Plain torch, one line per formula; autograd differentiates all three results.

    With z = hidden @ weight.T / T: lse = ln sum exp(z), logp = z[id] - lse, entropy = -sum p ln p.
    The logits are never rounded to 16 bits.
    """
    wide_dtype = wide(hidden.dtype)
    scaled = hidden.to(wide_dtype) @ weight.to(wide_dtype).T / temperature
    lse = scaled.logsumexp(-1)
    logp = scaled.gather(-1, ids[:, None])[:, 0] - lse
    if not entropy:
        return LogProbs(logp, None, lse)
    log_probs = scaled - lse[:, None]
    return LogProbs(logp, -(log_probs.exp() * log_probs).sum(-1), lse)
