"""Log-probabilities of chosen tokens, from logits or straight from the hidden states."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Rows whose logits are held at once: this many floats (64 MiB).
CHUNK_ELEMENTS = 2**24


class LogProbs(NamedTuple):
    """fp32, in the shape of the ids; zero where masked out."""

    logp: Float[Tensor, "..."]
    entropy: Float[Tensor, "..."] | None = None
    lse: Float[Tensor, "..."] | None = None


def logprob_from_logits(
    logits: Float[Tensor, "n vocab"], ids: Int[Tensor, " n"], temperature: float = 1.0
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Log-prob of each chosen id under softmax(logits / temperature), its entropy and log-sum-exp.

    The entropy (nats) is a measure and carries no gradient.
    """
    scaled = logits.float() / temperature
    lse = scaled.logsumexp(-1)
    logp = scaled.gather(-1, ids[:, None])[:, 0] - lse
    with torch.no_grad():
        log_probs = scaled - lse[:, None]
        entropy = -(log_probs.exp() * log_probs).sum(-1)
    return logp, entropy, lse


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
    """log softmax(hidden @ weight.T / temperature)[ids], never holding all the logits.

    Rows are worked on in chunks whose logits are computed again in the backward pass. Rows
    outside `mask` cost nothing and get zero. The caller passes ids already shifted: ids[i] is
    the token that follows hidden[i].

    Raises:
        ValueError: the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    live = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    rows, chosen = hidden[live], ids[live]
    size = max(1, CHUNK_ELEMENTS // weight.shape[0])

    def chunk(rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return logprob_from_logits(rows @ weight.T, chosen, temperature)

    if len(rows) <= size:
        parts = [chunk(rows, chosen)]
    else:
        parts = [
            checkpoint(chunk, rows[i : i + size], chosen[i : i + size], use_reentrant=False)
            for i in range(0, len(rows), size)
        ]
    empty = torch.zeros(ids.shape, dtype=torch.float32, device=hidden.device)
    logp, entropy, lse = (
        empty.masked_scatter(live, torch.cat(values)) for values in zip(*parts, strict=True)
    )
    return LogProbs(logp, entropy if return_entropy else None, lse if return_lse else None)
