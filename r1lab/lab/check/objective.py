"""The exercises on objectives (notebooks 01 and 07), judged by the package's own functions."""

from __future__ import annotations

import torch
from torch import Tensor

from r1lab import objective
from r1lab.lab.check.engine import Asked, exercise, number, require
from r1lab.training import reward_model


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _ragged(*lengths: int) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def _with_sample_std(rewards: Tensor) -> Tensor:
    """As `objective.group_advantages`, with the other std (divided by n - 1): right as well."""
    centered = rewards - rewards.mean(1, keepdim=True)
    return centered / (rewards.std(1, keepdim=True) + 1e-6)


@exercise
def group_advantages(ask: Asked) -> None:
    """fn(rewards [questions, group]) -> (r - mean) / (std + 1e-6) within each group."""
    rewards = torch.tensor([[1.0, 0, 0, 1, 0, 0], [1.0] * 6, [0.0] * 6, [0.1, 0.7, 1, 1, 0.4, 0.2]])
    yours = ask.tensor((4, 6), rewards)
    equal = yours[1:3].abs().max()
    require(equal == 0, "a group of equal rewards has nothing to compare: its advantages must be 0; "
            f"yours go up to {number(equal)}.")  # fmt: skip
    total = yours.sum(1).abs().max()
    require(total < 1e-3, f"the advantages of a group must sum to 0; yours sum to {number(total)}.")
    other = rewards.clone()
    other[0] = torch.tensor([5.0, -3, 2, 2, 0, 9])
    moved = (ask.tensor((4, 6), other)[1:] - yours[1:]).abs().max()
    require(moved < 1e-5, "mean and std belong to one group; but new rewards in the first group "
            f"move your advantages of the others, by up to {number(moved)}.")  # fmt: skip
    std = yours[3].std(correction=0)
    require(0.9 < std < 1.01, "the advantages of a group must have standard deviation 1; "
            f"yours have {number(std)}.")  # fmt: skip
    off = (ask.tensor((4, 6), rewards / 1000) - yours).abs().max()
    require(off < 0.05, "rewards in other units must give the same advantages, and 1e-6 is too "
            f"small to change that; all rewards divided by 1000 move yours by {number(off)}.")
    for size in (4, 5, 7):
        drawn = _random(5, size) * 3 + 2
        ask.agree([objective.group_advantages, _with_sample_std], [drawn],
                  lambda at: f"the advantage of {number(drawn[*at])} in its group")  # fmt: skip


@exercise
def clipped_objective(ask: Asked) -> None:
    """fn(ratio [batch, completion], advantages [batch, 1], clip_low, clip_high) -> per token."""
    ratio = torch.linspace(0.01, 6.93, 70).expand(4, 70).clone()
    advantages = torch.tensor([[1.5], [-0.7], [0.0], [-2.0]])
    for low, high in ((0.2, 0.28), (0.5, 0.1)):
        ask.agree([objective.clipped_objective], [ratio, advantages, low, high], lambda at:
                  f"for A = {number(advantages[at[0], 0])}, ratio {number(ratio[*at])}, "
                  f"clip_low {low} and clip_high {high} the objective", wrt=0)  # fmt: skip


def _k3_over_k2(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """The value of k3 with the gradient of k2, on-policy that of KL(pi || pi_ref): right as well."""
    k2 = objective.k2(logps, ref_logps)
    return k2 + (objective.k3(logps, ref_logps) - k2).detach()


@exercise
def kl_penalty(ask: Asked) -> None:
    """fn(logps, ref_logps) -> k3 per token, with a gradient that pulls to the reference."""
    logps = -_random(3, 5).abs()
    ref = logps + _random(3, 5, seed=1)
    logps[0, 0], ref[1, 1] = -12.0, -14.0
    low = ask.tensor((3, 5), logps, ref).min()
    require(low > -1e-6, f"k3 is never negative; yours goes down to {number(low)}.")
    ask.agree([objective.k3, _k3_over_k2], [logps, ref], lambda at: f"for log pi = {number(logps[*at])} and "
              f"log pi_ref = {number(ref[*at])} the penalty", wrt=0)  # fmt: skip


@exercise
def token_mean(ask: Asked) -> None:
    """fn(per_token [batch, completion], mask) -> mean over all tokens of the batch."""
    mask, values = _ragged(6, 2, 1, 4), _random(4, 6)
    values[0, 2] = 0.0  # a token like any other
    truth, yours = values[mask].mean(), ask.tensor((), values, mask)
    means = torch.stack([row[kept].mean() for row, kept in zip(values, mask, strict=True)]).mean()
    require(abs(yours - means) > 1e-3, f"your {number(yours)} is the mean of the completions' means: "
            f"tokens of short answers weigh more; over all tokens it is {number(truth)}.")
    for junk in (0.0, 1e6, float("inf"), float("nan")):
        ask.agree([lambda x, m: x[m].mean()], [torch.where(mask, values, junk), mask],
                  lambda at: f"over 13 tokens, with {junk} outside the mask, the mean "
                  f"{f'(token {at})' if at else ''}", wrt=0)  # fmt: skip


def _loss(advantages, logps, old, ref, rewards, mask, beta) -> Tensor:
    config = objective.LossConfig(clip_low=0.2, clip_high=0.2, beta=beta, aggregation="token")
    return objective.policy_loss(logps, old, ref, advantages(rewards).flatten(), mask, config)[0]


@exercise
def grpo_loss(ask: Asked) -> None:
    """fn(logps, old_logps, ref_logps, rewards [questions, group], mask, beta) -> scalar loss."""
    mask = _ragged(5, 2, 4, 3, 1, 5, 3, 2)
    full, equal = torch.ones_like(mask), torch.ones(2, 4)
    rewards = torch.tensor([[1.0, 0, 0, 0.3], [1.0, 1, 0, 1]])
    logps = -_random(8, 5).abs() - 0.1
    old, ref = logps + 0.4 * _random(8, 5, seed=1), logps + 0.5 * _random(8, 5, seed=2)
    truths = [lambda *x: _loss(objective.group_advantages, *x), lambda *x: _loss(_with_sample_std, *x)]
    for what, *asked in (
        ("equal rewards and beta 0 teach nothing", logps, old, ref, equal, mask, 0.0),
        ("with ratio 1 and beta 0", logps, logps, logps, rewards, full, 0.0),
        ("with ratios on both sides of the clip (0.2) and beta 0", logps, old, ref, rewards, full, 0.0),
        ("with answers of 1 to 5 tokens and beta 0", logps, old, ref, rewards, mask, 0.0),
        ("with equal rewards, so that only the KL term is left, and beta 0.5",
         logps, logps, ref, equal, mask, 0.5),
        ("with everything together and beta 0.1", logps, old, ref, rewards, mask, 0.1),
        ("with other log-probs outside the mask",
         torch.where(mask, logps, -20.0), old, ref, rewards, mask, 0.1),
    ):  # fmt: skip
        ask.agree(truths, asked, lambda at: f"{what}: the loss (to be made small) "
                  f"{f'for token {at}' if at else ''}", wrt=0)  # fmt: skip
    _, slope = ask.gradient((), 3, logps.requires_grad_(True), old, ref, rewards, mask, 0.1)
    require(not slope.any(), "the advantages are weights: detach them, or a gradient (here up to "
            f"{number(slope.abs().max())}) flows into the rewards.")  # fmt: skip


@exercise
def gae(ask: Asked) -> None:
    """fn(rewards [batch, time], values [batch, time], lam, gamma=1.0) -> advantages."""

    def truth(rewards: Tensor, values: Tensor, lam: float, gamma: float = 1.0) -> Tensor:
        mask = torch.ones_like(rewards, dtype=torch.bool)
        return objective.generalized_advantages(rewards, values, mask, lam, gamma)

    rewards, values = _random(3, 6), _random(3, 6, seed=1)
    one = torch.ones(2, 1)
    for why, *asked in (
        ("after the last step there is no value; for r = 3 and V = 1", 3 * one, one, 0.5),
        ("lam = 0 believes the critic, r + V(next) - V", rewards, values, 0.0),
        ("lam = 1 believes the rewards, their sum to the end - V", rewards, values, 1.0),
        *((f"with lam = {lam} and gamma = {gamma}", rewards, values, lam, gamma)
          for lam, gamma in ((0.95, 1.0), (0.0, 0.9), (1.0, 0.9), (0.7, 0.8))),
    ):  # fmt: skip
        ask.agree([truth], asked, lambda at: f"{why}: the advantage {at}")


@exercise
def bradley_terry(ask: Asked) -> None:
    """fn(chosen [pairs], rejected [pairs]) -> mean of -log sigmoid(chosen - rejected)."""
    chosen, rejected = torch.tensor([[2.0, -1.0, 0.5, 3.0], [0.5, 1.0, 0.5, -1.0]])
    moved = ask.tensor((), chosen + 7, rejected + 7) - ask.tensor((), chosen, rejected)
    require(abs(moved) < 1e-4, "only differences count; 7 added to all eight scores moves your "
            f"loss by {number(moved)}.")  # fmt: skip
    for what, better, worse in (
        ("one pair of equal scores: log 2", [0.0], [0.0]),
        ("one pair in the right order", [2.0], [0.0]),
        ("one pair in the wrong order", [0.0], [2.0]),
        ("four pairs", chosen, rejected),
        ("a pair as wrong as can be", [-150.0], [150.0]),
    ):
        pair = [torch.as_tensor(better), torch.as_tensor(worse)]
        for scores in (0, 1):
            ask.agree([reward_model.bradley_terry], pair, lambda at:
                      f"{what}: the loss{f' (score {at[0]})' if at else ''}", wrt=scores)  # fmt: skip
