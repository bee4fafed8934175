"""The objective of GRPO: pure functions of tensors, one per equation.

Sources: DeepSeek-R1 (arXiv 2501.12948, v2 eq. 1-3 and 11-13) and DeepSeekMath (arXiv 2402.03300,
eq. 3-4), which prints the token-level form used here.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Aggregation = Literal["sequence", "token", "constant"]


@dataclass(frozen=True)
class LossConfig:
    """The objective's constants.

    Attributes:
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
        beta: weight of the KL term; 0 leaves the reference policy out.
        aggregation: how tokens are averaged. "sequence": mean over each completion, then over
            completions (DeepSeekMath's 1/|o_i|); "token": mean over all tokens (DAPO);
            "constant": sum over a constant (Dr. GRPO).
        rollout_weight_cap: cap C of the truncated importance weight min(pi_old / pi_rollout, C),
            used when the sampler's log-probs differ from the scorer's.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    beta: float = 0.001
    aggregation: Aggregation = "token"
    rollout_weight_cap: float = 2.0


def group_advantages(
    rewards: Float[Tensor, "questions group"], *, divide_by_std: bool = True, epsilon: float = 1e-6
) -> Float[Tensor, "questions group"]:
    """A_i = (r_i - mean(r)) / std(r) within each group (R1 v2 eq. 3).

    The paper does not say which std; this is the population's, with `epsilon` added. A NaN is a
    completion that could not be scored: it is left out of mean and std and gets advantage 0. A
    group whose rewards are all equal has nothing to compare: its advantages are exactly 0.
    """
    scored = ~rewards.isnan()
    count = scored.sum(1, keepdim=True).clamp(min=1)
    values = rewards.nan_to_num(0.0)
    mean = (values * scored).sum(1, keepdim=True) / count
    centered = (values - mean) * scored
    if divide_by_std:
        std = ((centered**2).sum(1, keepdim=True) / count).sqrt()
        centered = centered / (std + epsilon)
    return torch.where(groups_that_differ(rewards)[:, None], centered, 0.0)


def groups_that_differ(rewards: Float[Tensor, "questions group"]) -> Bool[Tensor, " questions"]:
    """Which groups hold two different rewards, and so teach something."""
    highest = rewards.nan_to_num(-math.inf).amax(1)
    lowest = rewards.nan_to_num(math.inf).amin(1)
    return highest > lowest


def k3(
    logps: Float[Tensor, "batch completion"], ref_logps: Float[Tensor, "batch completion"]
) -> Float[Tensor, "batch completion"]:
    """pi_ref/pi - log(pi_ref/pi) - 1 per token (v2 eq. 2): at least 0, unbiased on-policy."""
    log_ratio = ref_logps - logps
    return log_ratio.exp() - log_ratio - 1


def clipped_objective(
    ratio: Float[Tensor, "batch completion"],
    advantages: Float[Tensor, "batch 1"],
    clip_low: float,
    clip_high: float,
) -> Float[Tensor, "batch completion"]:
    """min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A) per token (v2 eq. 1)."""
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.minimum(ratio * advantages, clipped * advantages)


def loss_normalizer(
    aggregation: Aggregation, lengths: list[int], max_tokens: int
) -> float:
    """What the summed loss is divided by, over all processes and micro-batches.

    Args:
        lengths: completion lengths of the whole mini-batch; empty completions do not count.
        max_tokens: the length cap, which makes Dr. GRPO's constant.
    """
    sequences = sum(length > 0 for length in lengths)
    count = {
        "sequence": sequences,
        "token": sum(lengths),
        "constant": sequences * max_tokens,
    }[aggregation]
    return float(max(1, count))


def policy_loss(
    logps: Float[Tensor, "batch completion"],
    old_logps: Float[Tensor, "batch completion"],
    ref_logps: Float[Tensor, "batch completion"] | None,
    advantages: Float[Tensor, " batch"],
    mask: Bool[Tensor, "batch completion"],
    config: LossConfig,
    *,
    rollout_logps: Float[Tensor, "batch completion"] | None = None,
    normalizer: float | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Minus the GRPO objective (DeepSeekMath eq. 3), and sums for the metrics.

    Args:
        logps: log-probs under the policy being trained; the only one with a gradient.
        old_logps: under the policy that the rollout was drawn from.
        ref_logps: under the reference policy; may be None when `beta` is 0.
        rollout_logps: as the sampler itself reports them, where they differ from `old_logps`.
        normalizer: see `loss_normalizer`; by default that of this batch alone. The loss is a sum
            divided by it, so that losses of micro-batches and processes add up.

    Returns:
        (loss, metrics): the metrics are sums over this batch's tokens, to be divided by "tokens".
    """
    ratio = torch.where(mask, logps - old_logps, 0.0).exp()
    column = advantages[:, None]
    objective = clipped_objective(ratio, column, config.clip_low, config.clip_high)
    if rollout_logps is not None:
        drift = torch.where(mask, old_logps - rollout_logps, 0.0)
        objective = objective * drift.exp().clamp(max=config.rollout_weight_cap)
    divergence = torch.zeros_like(ratio)
    if config.beta > 0:
        divergence = k3(logps, ref_logps)
    per_token = torch.where(mask, config.beta * divergence - objective, 0.0)
    lengths = mask.sum(1)
    if config.aggregation == "sequence":
        per_token = per_token / lengths.clamp(min=1)[:, None]
    if normalizer is None:
        normalizer = loss_normalizer(config.aggregation, lengths.tolist(), mask.shape[1])
    with torch.no_grad():
        outside = (column > 0) & (ratio > 1 + config.clip_high)
        outside |= (column < 0) & (ratio < 1 - config.clip_low)
        metrics = {
            "tokens": lengths.sum(),
            "kl": torch.where(mask, divergence, 0.0).sum(),
            "clip_fraction": (outside & mask).sum(),
            "ratio_max": ratio.max() if ratio.numel() else torch.ones(()),
        }
    return per_token.sum() / normalizer, metrics
