"""The exercises on tensors (notebooks 01, 07, 11 and 12), judged by right functions.

Each is asked about its cases in `examples.json`, [why, arguments]. Where there is more than one right
way, the nearest of the right functions judges.
"""

from functools import partial

import torch

from r1lab import objective
from r1lab.lab.check.engine import exercise, require
from r1lab.stages import preferences


def _with_sample_std(rewards):
    """As `objective.group_advantages`, with the other std (divided by n - 1): right as well."""
    centered = rewards - rewards.mean(1, keepdim=True)
    return centered / (rewards.std(1, keepdim=True) + 1e-6)


ADVANTAGES = [objective.group_advantages, _with_sample_std]


@exercise
def group_advantages(ask):
    """fn(rewards [questions, group]) -> (r - mean) / (std + 1e-6) within each group."""
    ask.cases(ADVANTAGES, "the advantage of {0:.4g}")


@exercise
def clipped_objective(ask):
    """fn(ratio [batch, completion], advantages [batch, 1], clip_low, clip_high) -> per token."""
    words = "for A = {1:.4g}, ratio {0:.4g}, clip_low {2} and clip_high {3} the objective"
    ask.cases([objective.clipped_objective], words, wrt=(0,))


def _k3_over_k2(logps, ref_logps):
    """The value of k3 with the gradient of k2, on-policy that of KL(pi || pi_ref): right as well."""
    k2 = objective.k2(logps, ref_logps)
    return k2 + (objective.k3(logps, ref_logps) - k2).detach()


@exercise
def kl_penalty(ask):
    """fn(logps, ref_logps) -> k3 per token, with a gradient that pulls to the reference."""
    words = "for log pi = {0:.4g} and log pi_ref = {1:.4g} the penalty, which is never negative,"
    ask.cases([objective.k3, _k3_over_k2], words, wrt=(0,))


@exercise
def token_mean(ask):
    """fn(per_token [batch, completion], mask) -> mean over all tokens of the batch."""
    ask.cases([lambda values, mask: values[mask].mean()], "the mean", wrt=(0,))


@exercise
def grpo_loss(ask):
    """fn(logps, old_logps, ref_logps, rewards [questions, group], mask, beta) -> scalar loss."""

    def loss(advantages, logps, old, ref, rewards, mask, beta):
        config = objective.LossConfig(clip_low=0.2, clip_high=0.2, beta=beta, aggregation="token")
        weights = advantages(rewards).flatten().detach()
        return objective.policy_loss(logps, old, ref, weights, mask, config)[0]

    truths = [partial(loss, advantages) for advantages in ADVANTAGES]
    ask.cases(truths, "the loss (to be made small; advantages are weights, to be detached)", wrt=(0, 3))


@exercise
def gae(ask):
    """fn(rewards [batch, time], values [batch, time], lam, gamma=1.0) -> advantages."""

    def truth(rewards, values, *decay):
        mask = torch.ones_like(rewards, dtype=torch.bool)
        return objective.generalized_advantages(rewards, values, mask, *decay)

    ask.cases([truth], "the advantage for lam = {2}")


@exercise
def bradley_terry(ask):
    """fn(chosen [pairs], rejected [pairs]) -> mean of -log sigmoid(chosen - rejected)."""
    ask.cases([preferences.bradley_terry], "the loss", wrt=(0, 1))


@exercise
def online_softmax(ask):
    """fn(top, mass, block [columns]) -> [2]: the largest score so far, and the sum below it."""

    def truth(top, mass, block):
        new = torch.maximum(top, block.max())
        return torch.stack([new, mass * (top - new).exp() + (block - new).exp().sum()])

    words = "after top {0:g} and mass {1:g} the new [top, mass]"
    ask.cases([truth], words, tensors=list | float)


@exercise
def target_in_tile(ask):
    """fn(z [rows, columns], first, ids [rows], chosen [rows]) -> chosen [rows], this tile's filled in.

    z holds the columns first, first + 1, …; `chosen` is 0 where no tile had the row's id yet.
    """

    def truth(z, first, ids, chosen):
        hit = torch.arange(first, first + z.shape[1]) == ids[:, None]
        return torch.where(hit.any(1), torch.where(hit, z, 0.0).sum(1), chosen)

    ask.cases([truth], "for the row of id {2}, the tile's first column being {1}, the chosen score")


@exercise
def tis_weight(ask):
    """fn(trainer [batch, tokens], sampler [batch, tokens], cap) -> min(exp(trainer - sampler), cap)."""

    def truth(trainer, sampler, cap):
        return (trainer - sampler).exp().clamp(max=cap)

    words = "for log p = {0:.3g} of the trainer and {1:.3g} of the sampler the weight"
    ask.cases([truth], words)
    result, _ = ask(torch.zeros(1, 3), torch.ones(1, 3), 5.0, wrt=(0,))
    fault = "the weight is a number by which the loss is multiplied; a gradient flows through yours"
    require(not result.requires_grad, f"{fault} for {ask.last}: detach it.")
