"""The objective of GRPO and its variants: pure functions, one per equation.

Sources: DeepSeek-R1 (arXiv 2501.12948, v2 eq. 1-3 and 11-13) and DeepSeekMath (arXiv 2402.03300,
eq. 3-4), which prints the token-level form used here. Sequence ratio: GSPO, arXiv 2507.18071.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Aggregation = Literal["sequence", "token", "constant"]
Groups = Float[Tensor, "questions group"]
Tokens = Float[Tensor, "batch completion"]  # one number for each token of each completion
Mask = Bool[Tensor, "batch completion"]  # which of the columns are tokens of the completion


@dataclass(frozen=True)
class LossConfig:
    """The objective's constants.

    Attributes:
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
        beta: weight of the KL term; 0 leaves the reference policy out.
        aggregation: how tokens are averaged. "sequence": mean over each completion, then over
            completions (DeepSeekMath's 1/|o_i|); "token": mean over all tokens (DAPO);
            "constant": sum over a constant (Dr. GRPO).
        ratio: "token": one ratio per token; "sequence": one per completion (see `sequence_ratio`).
        kl: the estimator of the KL term. "k1" is a mistake to study: its gradient pulls nowhere.
        weigh_kl: multiply the KL term by the token's ratio. The gradient of k3 is then that of
            KL(pi || pi_ref), also off-policy (DeepSeek-V3.2; TRL's `use_bias_correction_kl`).
        rollout_weight_cap: cap C of the truncated importance weight min(pi_old / pi_rollout, C),
            used when the sampler's log-probs differ from the scorer's.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    beta: float = 0.001
    aggregation: Aggregation = "token"
    ratio: Literal["token", "sequence"] = "token"
    kl: Literal["k1", "k2", "k3"] = "k3"
    weigh_kl: bool = False
    rollout_weight_cap: float = 2.0


def group_advantages(rewards: Groups, *, divide_by_std: bool = True) -> Groups:
    """A_i = (r_i - mean(r)) / std(r) within each group (R1 v2 eq. 3).

    The paper does not say which std; this is the population's, with 1e-6 added. A NaN is a
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
        centered = centered / (std + 1e-6)
    return torch.where(groups_that_differ(rewards)[:, None], centered, 0.0)


def groups_that_differ(rewards: Groups) -> Bool[Tensor, " questions"]:
    """Which groups hold two different rewards, and so teach something."""
    highest = rewards.nan_to_num(-math.inf).amax(1)
    lowest = rewards.nan_to_num(math.inf).amin(1)
    return highest > lowest


def k1(logps: Tokens, ref_logps: Tokens) -> Tokens:
    """log(pi/pi_ref) per token: unbiased on-policy; its own gradient is 0 on average."""
    return logps - ref_logps


def k2(logps: Tokens, ref_logps: Tokens) -> Tokens:
    """log(pi/pi_ref)^2 / 2 per token: biased; its mean on-policy gradient is the KL's."""
    return (logps - ref_logps) ** 2 / 2


def k3(logps: Tokens, ref_logps: Tokens) -> Tokens:
    """pi_ref/pi - log(pi_ref/pi) - 1 per token (v2 eq. 2): at least 0, unbiased on-policy.

    Its mean on-policy gradient is that of the other divergence, KL(pi_ref || pi).
    """
    log_ratio = ref_logps - logps
    return log_ratio.exp() - log_ratio - 1


KL_ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


def sequence_ratio(log_ratio: Tokens, mask: Mask) -> Tokens:
    """(pi(o)/pi_old(o))^(1/|o|), the geometric mean of a completion's token ratios, in each column.

    GSPO-token's form: the value is the sequence's, the gradient of a column flows through its own
    token alone. With one advantage per completion that is GSPO's gradient.

    Args:
        log_ratio: log(pi/pi_old) per token, 0 outside the mask.
    """
    mean = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    return (mean.detach() + log_ratio - log_ratio.detach()).exp()


def clipped_objective(
    ratio: Tokens, advantages: Float[Tensor, "batch #completion"], clip_low: float, clip_high: float
) -> Tokens:
    """min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A) per token (v2 eq. 1)."""
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.minimum(ratio * advantages, clipped * advantages)


def loss_normalizer(aggregation: Aggregation, lengths: list[int], max_tokens: int) -> float:
    """What the summed loss is divided by, over all processes and micro-batches.

    Args:
        lengths: completion lengths of the whole mini-batch; empty completions do not count.
        max_tokens: the length cap, which makes Dr. GRPO's constant.
    """
    sequences = sum(length > 0 for length in lengths)
    counts = {"sequence": sequences, "token": sum(lengths), "constant": sequences * max_tokens}
    return float(max(1, counts[aggregation]))


def policy_loss(
    logps: Tokens, old_logps: Tokens, ref_logps: Tokens | None,
    advantages: Float[Tensor, " batch"] | Tokens, mask: Mask, config: LossConfig, *,
    rollout_logps: Tokens | None = None, normalizer: float | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:  # fmt: skip
    """Minus the GRPO objective (DeepSeekMath eq. 3), and sums for the metrics.

    Args:
        logps: log-probs under the policy being trained; the only one with a gradient.
        old_logps: under the policy that the rollout was drawn from.
        ref_logps: under the reference policy; may be None when `beta` is 0.
        advantages: one per completion (GRPO), or one per token (PPO).
        rollout_logps: as the sampler itself reports them, where they differ from `old_logps`.
        normalizer: see `loss_normalizer`; by default that of this batch alone. The loss is a sum
            divided by it, so that losses of micro-batches and processes add up.

    Returns:
        (loss, metrics): the metrics are sums over this batch's tokens, to be divided by "tokens".
    """
    log_ratio = torch.where(mask, logps - old_logps, 0.0)
    token_ratio = log_ratio.exp()
    ratio = token_ratio if config.ratio == "token" else sequence_ratio(log_ratio, mask)
    column = advantages if advantages.ndim == 2 else advantages[:, None]
    objective = clipped_objective(ratio, column, config.clip_low, config.clip_high)
    if rollout_logps is not None:
        drift = torch.where(mask, old_logps - rollout_logps, 0.0)
        objective = objective * drift.exp().clamp(max=config.rollout_weight_cap)
    divergence = torch.zeros_like(ratio)
    if config.beta > 0:
        divergence = KL_ESTIMATORS[config.kl](logps, ref_logps)
    penalty = divergence * token_ratio if config.weigh_kl else divergence
    per_token = torch.where(mask, config.beta * penalty - objective, 0.0)
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
