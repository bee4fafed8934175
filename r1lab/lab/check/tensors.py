"""The exercises on tensors (notebooks 01, 07, 11 and 12).

Each is asked about its cases in `examples.json`, [why, arguments, right answers]: the nearest of the right
answers judges, where there is more than one right way. An answer is [result, slopes], the slopes being the
gradient of the result's sum over each of the arguments `wrt`.
"""

import torch

from r1lab.lab.check.engine import exercise, require


@exercise
def group_advantages(ask):
    """fn(rewards [questions, group]) -> (r - mean) / (std + 1e-6) within each group.

    The std may be divided by n or by n - 1.
    """
    ask.cases("the advantage of {0:.4g}")


@exercise
def clipped_objective(ask):
    """fn(ratio [batch, completion], advantages [batch, 1], clip_low, clip_high) -> per token."""
    ask.cases("for A = {1:.4g}, ratio {0:.4g}, clip_low {2} and clip_high {3} the objective", wrt=(0,))


@exercise
def kl_penalty(ask):
    """fn(logps, ref_logps) -> k3 per token, with a gradient that pulls to the reference.

    The gradient may be that of k3, or of k2, on-policy that of KL(pi || pi_ref).
    """
    words = "for log pi = {0:.4g} and log pi_ref = {1:.4g} the penalty, which is never negative,"
    ask.cases(words, wrt=(0,))


@exercise
def token_mean(ask):
    """fn(per_token [batch, completion], mask) -> mean over all tokens of the batch."""
    ask.cases("the mean", wrt=(0,))


@exercise
def grpo_loss(ask):
    """fn(logps, old_logps, ref_logps, rewards [questions, group], mask, beta) -> scalar loss."""
    ask.cases("the loss (to be made small; advantages are weights, to be detached)", wrt=(0, 3))


@exercise
def gae(ask):
    """fn(rewards [batch, time], values [batch, time], lam, gamma=1.0) -> advantages."""
    ask.cases("the advantage for lam = {2}")


@exercise
def bradley_terry(ask):
    """fn(chosen [pairs], rejected [pairs]) -> mean of -log sigmoid(chosen - rejected)."""
    ask.cases("the loss", wrt=(0, 1))


@exercise
def online_softmax(ask):
    """fn(top, mass, block [columns]) -> [2]: the largest score so far, and the sum below it."""
    ask.cases("after top {0:g} and mass {1:g} the new [top, mass]", tensors=list | float)


@exercise
def target_in_tile(ask):
    """fn(z [rows, columns], first, ids [rows], chosen [rows]) -> chosen [rows], this tile's filled in.

    z holds the columns first, first + 1, …; `chosen` is 0 where no tile had the row's id yet.
    """
    ask.cases("for the row of id {2}, the tile's first column being {1}, the chosen score")


@exercise
def tis_weight(ask):
    """fn(trainer [batch, tokens], sampler [batch, tokens], cap) -> min(exp(trainer - sampler), cap)."""
    ask.cases("for log p = {0:.3g} of the trainer and {1:.3g} of the sampler the weight")
    result, _ = ask(torch.zeros(1, 3), torch.ones(1, 3), 5.0, wrt=(0,))
    fault = "the weight is a number by which the loss is multiplied; a gradient flows through yours"
    require(not result.requires_grad, f"{fault} for {ask.last}: detach it.")
