"""The exercises on tensors (notebooks 01, 07, 11 and 12), judged by the package's own functions."""

import math

import torch

from r1lab import objective
from r1lab.lab.check.engine import exercise, require
from r1lab.stages import preferences


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _ragged(*lengths):
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def _with_sample_std(rewards):
    """As `objective.group_advantages`, with the other std (divided by n - 1): right as well."""
    centered = rewards - rewards.mean(1, keepdim=True)
    return centered / (rewards.std(1, keepdim=True) + 1e-6)


ADVANTAGES = [objective.group_advantages, _with_sample_std]


@exercise
def group_advantages(ask):
    """fn(rewards [questions, group]) -> (r - mean) / (std + 1e-6) within each group."""
    rewards = torch.tensor([[1.0, 0, 0, 1, 0, 0], [1.0] * 6, [0.0] * 6, [0.1, 0.7, 1, 1, 0.4, 0.2]])
    other = torch.cat([torch.tensor([[5.0, -3, 2, 2, 0, 9]]), rewards[1:]])
    asked = (rewards, other, rewards / 1000)
    [yours], [moved], [scaled] = (ask.tensors([one], (4, 6)) for one in asked)
    for value, low, high, sentence in (
        (yours[1:3], 0, 0, "a group of equal rewards has nothing to compare: its advantages must be 0; "
         "yours go up to"),
        (yours.sum(1), 0, 1e-3, "the advantages of a group must sum to 0; yours sum to"),
        (moved[1:] - yours[1:], 0, 1e-5, "mean and std belong to one group; but new rewards in the first "
         "group move your advantages of the others, by up to"),
        (yours[3].std(correction=0), 0.9, 1.01, "the advantages of a group must have standard deviation "
         "1; yours have"),
        (scaled - yours, 0, 0.05, "rewards in other units must give the same advantages, and 1e-6 is too "
         "small to change that; all rewards divided by 1000 move yours by")
    ):  # fmt: skip
        worst = value.abs().max()
        require(low <= worst <= high, f"{sentence} {worst:.4g}.")
    for size in (4, 5, 7):
        drawn = _random(5, size) * 3 + 2
        ask.agree(ADVANTAGES, [drawn], "the advantage of {0:.4g} in its group")


@exercise
def clipped_objective(ask):
    """fn(ratio [batch, completion], advantages [batch, 1], clip_low, clip_high) -> per token."""
    ratio = torch.linspace(0.01, 6.93, 70).expand(4, 70)
    advantages = torch.tensor([[1.5], [-0.7], [0.0], [-2.0]])
    words = "for A = {1:.4g}, ratio {0:.4g}, clip_low {2} and clip_high {3} the objective"
    for clip in ((0.2, 0.28), (0.5, 0.1)):
        ask.agree([objective.clipped_objective], [ratio, advantages, *clip], words, wrt=0)


def _k3_over_k2(logps, ref_logps):
    """The value of k3 with the gradient of k2, on-policy that of KL(pi || pi_ref): right as well."""
    k2 = objective.k2(logps, ref_logps)
    return k2 + (objective.k3(logps, ref_logps) - k2).detach()


@exercise
def kl_penalty(ask):
    """fn(logps, ref_logps) -> k3 per token, with a gradient that pulls to the reference."""
    logps = -_random(3, 5).abs()
    ref = logps + _random(3, 5, seed=1)
    logps[0, 0], ref[1, 1] = -12.0, -14.0
    words = "for log pi = {0:.4g} and log pi_ref = {1:.4g} the penalty, which is never negative,"
    ask.agree([objective.k3, _k3_over_k2], [logps, ref], words, wrt=0)


@exercise
def token_mean(ask):
    """fn(per_token [batch, completion], mask) -> mean over all tokens of the batch."""
    mask, values = _ragged(6, 2, 1, 4), _random(4, 6)
    values[0, 2] = 0.0  # a token like any other
    for junk in (0.0, 1e6, math.inf, math.nan):
        words = f"over all 13 tokens alike, with {junk} outside the mask, the mean"
        asked = [torch.where(mask, values, junk), mask]
        ask.agree([lambda x, m: x[m].mean()], asked, words, wrt=0)


@exercise
def grpo_loss(ask):
    """fn(logps, old_logps, ref_logps, rewards [questions, group], mask, beta) -> scalar loss."""

    def loss(advantages, logps, old, ref, rewards, mask, beta):
        config = objective.LossConfig(clip_low=0.2, clip_high=0.2, beta=beta, aggregation="token")
        weights = advantages(rewards).flatten().detach()
        return objective.policy_loss(logps, old, ref, weights, mask, config)[0]

    mask, equal = _ragged(5, 2, 4, 3, 1, 5, 3, 2), torch.ones(2, 4)
    logps = -_random(8, 5).abs() - 0.1
    whole = {
        "logps": logps.clone().requires_grad_(True),
        "old": logps + 0.4 * _random(8, 5, seed=1),
        "ref": logps + 0.5 * _random(8, 5, seed=2),
        "rewards": torch.tensor([[1.0, 0, 0, 0.3], [1.0, 1, 0, 1]]),
        "mask": mask,
        "beta": 0.1,
    }
    truths = [lambda *given, std=std: loss(std, *given) for std in ADVANTAGES]
    for what, changed in (
        ("equal rewards and beta 0 teach nothing", {"rewards": equal, "beta": 0.0}),
        ("with ratio 1 and beta 0", {"old": logps, "mask": torch.ones_like(mask), "beta": 0.0}),
        ("with ratios on both sides of the clip (0.2) and beta 0", {"beta": 0.0}),
        ("with equal rewards, so that only the KL term is left", {"old": logps, "rewards": equal}),
        ("with everything together and beta 0.1", {}),
        ("with other log-probs outside the mask", {"logps": torch.where(mask, logps, -20.0)}),
    ):
        given = [*(whole | changed).values()]
        ask.agree(truths, given, f"{what}: the loss (to be made small)", wrt=0)
    words = "the advantages are weights, to be detached; for the reward, the loss"
    ask.agree(truths, [*whole.values()], words, wrt=3)


@exercise
def gae(ask):
    """fn(rewards [batch, time], values [batch, time], lam, gamma=1.0) -> advantages."""

    def truth(rewards, values, *decay):
        mask = torch.ones_like(rewards, dtype=torch.bool)
        return objective.generalized_advantages(rewards, values, mask, *decay)

    ask.cases(truth, "the advantage for lam = {2}")


@exercise
def bradley_terry(ask):
    """fn(chosen [pairs], rejected [pairs]) -> mean of -log sigmoid(chosen - rejected)."""
    for side in (0, 1):
        ask.cases(preferences.bradley_terry, "the loss", wrt=side)


@exercise
def online_softmax(ask):
    """fn(top, mass, block [columns]) -> [2]: the largest score so far, and the sum below it."""

    def truth(top, mass, block):
        new = torch.maximum(top, block.max())
        return torch.stack([new, mass * (top - new).exp() + (block - new).exp().sum()])

    words = "after top {0:g} and mass {1:g} the new [top, mass]"
    ask.cases(truth, words, tensors=list | float)


@exercise
def target_in_tile(ask):
    """fn(z [rows, columns], first, ids [rows], chosen [rows]) -> chosen [rows], this tile's filled in.

    z holds the columns first, first + 1, …; `chosen` is 0 where no tile had the row's id yet.
    """

    def truth(z, first, ids, chosen):
        hit = torch.arange(first, first + z.shape[1]) == ids[:, None]
        return torch.where(hit.any(1), torch.where(hit, z, 0.0).sum(1), chosen)

    words = "for the row of id {2}, the tile's first column being {1}, the chosen score"
    ask.cases(truth, words)


@exercise
def tis_weight(ask):
    """fn(trainer [batch, tokens], sampler [batch, tokens], cap) -> min(exp(trainer - sampler), cap)."""

    def truth(trainer, sampler, cap):
        return (trainer - sampler).exp().clamp(max=cap)

    words = "for log p = {0:.3g} of the trainer and {1:.3g} of the sampler the weight"
    ask.cases(truth, words)
    result, _ = ask(_random(1, 3), _random(1, 3, seed=1), 5.0, wrt=0)
    fault = "the weight is a number by which the loss is multiplied; a gradient flows through yours"
    require(not result.requires_grad, f"{fault} for {ask.last}: detach it.")
