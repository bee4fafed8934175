"""The objective, against hand-made numbers; against TRL, term by term: test_objective_trl.py."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1lab.objective import (
    LossConfig, clipped_objective, group_advantages, groups_that_differ, k1, k2, k3, loss_normalizer,
    policy_loss, sequence_ratio,
)  # fmt: skip
from tabular import generalized_advantages

NAN = math.nan
FREE = LossConfig(clip_low=10.0, clip_high=10.0, beta=0.0)


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    expected = [1, -1, -1, 1, *(torch.tensor([0.75, -0.25, -0.25, -0.25]) / 0.1875**0.5).tolist()]
    assert torch.allclose(group_advantages(rewards).flatten(), torch.tensor(expected), atol=1e-4)


def test_without_the_std_advantages_are_the_distance_from_the_mean():
    advantages = group_advantages(torch.tensor([[2.0, 0.0]]), divide_by_std=False)
    assert advantages.tolist() == [[1.0, -1.0]]


@given(st.lists(st.sampled_from([0.0, 0.3, 1.0, 1.3]), min_size=2, max_size=16))
def test_advantages_of_a_group_sum_to_zero_and_have_unit_spread(rewards):
    advantages = group_advantages(torch.tensor([rewards]))[0]
    assert advantages.sum().abs() < 1e-4
    if len(set(rewards)) > 1:
        assert advantages.std(unbiased=False) == pytest.approx(1, abs=1e-3)
    else:
        assert advantages.tolist() == [0.0] * len(rewards)


def test_equal_rewards_that_do_not_average_exactly_still_give_exact_zeros():
    rewards = torch.full((1, 7), 0.1)
    assert group_advantages(rewards).tolist() == [[0.0] * 7]
    assert not groups_that_differ(rewards).any()


def test_a_completion_that_cannot_be_scored_has_no_part_in_its_group():
    advantages = group_advantages(torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, NAN]]))
    assert torch.allclose(advantages, torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]), atol=1e-5)


@pytest.mark.parametrize(("ratio", "advantage", "value", "slope"), [
    (1.5, 1.0, 1.28, 0.0),  # good and already much likelier: no further push
    (0.5, 1.0, 0.5, 1.0),  # good but less likely now: pulled back, whatever the clip
    (0.5, -1.0, -0.8, 0.0),  # bad and already much less likely
    (1.5, -1.0, -1.5, -1.0),  # bad but likelier now: pushed down, whatever the clip
    (1.0, 2.0, 2.0, 2.0),
])  # fmt: skip
def test_the_clip_stops_only_what_went_far_enough(ratio, advantage, value, slope):
    ratios = torch.tensor([[ratio]], requires_grad=True)
    objective = clipped_objective(ratios, torch.tensor([[advantage]]), 0.2, 0.28)
    objective.sum().backward()
    assert objective.item() == pytest.approx(value)
    assert ratios.grad.item() == pytest.approx(slope)


def _kl_by_enumeration(estimator, of_gradient=False):
    """The estimator's mean over one token's distribution: its value, or its gradient."""
    generator = torch.Generator().manual_seed(0)
    logits, reference = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    policy, reference = logits.log_softmax(-1), reference.log_softmax(-1)
    mean = (policy.exp().detach() * estimator(policy[None], reference[None])[0]).sum()
    kl = (policy.exp() * (policy - reference)).sum()
    reverse = (reference.exp() * (reference - policy)).sum()
    if not of_gradient:
        return mean, kl
    return tuple(torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (mean, kl, reverse))


def _k3_weighed(logps, ref_logps):
    return (logps - logps.detach()).exp() * k3(logps, ref_logps)


@pytest.mark.parametrize(
    ("estimator", "unbiased"), [(k1, True), (k2, False), (k3, True), (_k3_weighed, True)]
)
def test_the_mean_of_k1_and_k3_is_the_kl_divergence(estimator, unbiased):
    mean, kl = _kl_by_enumeration(estimator)
    assert (abs(mean.item() - kl.item()) < 1e-12) == unbiased


def test_k3_is_never_negative():
    logps = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    assert (k3(logps, logps.flip(0)) >= 0).all()


def test_each_kl_estimator_pulls_its_own_way():
    gradients = {f: _kl_by_enumeration(f, of_gradient=True) for f in (k1, k2, k3, _k3_weighed)}
    _, kl, reverse = gradients[k1]
    expected = {k1: torch.zeros_like(kl), k2: kl, k3: reverse, _k3_weighed: kl}
    for estimator, (mean, _, _) in gradients.items():
        assert torch.allclose(mean, expected[estimator], atol=1e-12), estimator.__name__
    assert (kl - reverse).norm() > 0.1 * kl.norm(), "two divergences that differ"


def test_the_ratio_of_a_sequence_by_hand():
    log_ratio = torch.tensor([[2.0, 4.0], [8.0, 1.0]]).log().requires_grad_()
    mask = torch.tensor([[True, True], [True, False]])
    ratio = sequence_ratio(log_ratio, mask)
    expected = torch.tensor([[8.0**0.5, 8.0**0.5], [8.0, 8.0]])  # geometric means
    assert torch.allclose(ratio, expected)
    ratio[0, 0].backward()  # a column's gradient goes through its own token alone
    assert torch.allclose(log_ratio.grad, torch.tensor([[8.0**0.5, 0.0], [0.0, 0.0]]))


def _batch(seed: int, rows: int = 5, width: int = 7):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, width + 1, (rows,), generator=generator)
    lengths[0] = width
    mask = torch.arange(width) < lengths[:, None]
    logps = -torch.rand(rows, width, generator=generator, dtype=torch.float64) * 3
    old = logps + 0.3 * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    ref = logps + 0.3 * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    return logps.requires_grad_(), old, ref, advantages, mask


@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
def test_losses_of_parts_add_up_to_the_loss_of_the_whole(aggregation):
    logps, old, ref, advantages, mask = _batch(1)
    config = LossConfig(aggregation=aggregation, beta=0.1)
    normalizer = loss_normalizer(aggregation, mask.sum(1).tolist(), 7)
    whole, _ = policy_loss(logps, old, ref, advantages, mask, config, normalizer=normalizer)
    parts = [
        policy_loss(
            logps[rows], old[rows], ref[rows], advantages[rows], mask[rows], config,
            normalizer=normalizer,
        )[0]
        for rows in (slice(0, 2), slice(2, 5))
    ]  # fmt: skip
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-12)


def test_masked_tokens_change_nothing():
    logps, old, ref, advantages, mask = _batch(2)
    first, _ = policy_loss(logps, old, ref, advantages, mask, LossConfig(beta=0.1))
    first.backward()
    assert (logps.grad[~mask] == 0).all()
    old = torch.where(mask, old, 1e9)
    second, _ = policy_loss(logps, old, ref, advantages, mask, LossConfig(beta=0.1))
    assert second.item() == first.item()


def test_an_empty_completion_counts_for_nothing():
    zeros = torch.zeros(2, 3)
    mask = torch.tensor([[True, True, True], [False, False, False]])
    advantages = torch.tensor([1.0, 5.0])
    loss, metrics = policy_loss(zeros, zeros, None, advantages, mask, FREE)
    assert loss.item() == -1.0 and metrics["tokens"] == 3
    nothing, _ = policy_loss(zeros, zeros, None, advantages, mask & False, FREE)
    assert nothing.item() == 0.0


REWARDS, VALUES = [[0.0, 0.0, 1.0]], [[0.5, 0.4, 0.8]]


@pytest.mark.parametrize(("lam", "expected"), [
    (0.0, [-0.1, 0.4, 0.2]),  # what each token added to the critic's opinion
    (0.5, [0.15, 0.5, 0.2]),
    (1.0, [0.5, 0.6, 0.2]),  # return minus value
])  # fmt: skip
def test_generalized_advantages_by_hand(lam, expected):
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages = generalized_advantages(torch.tensor(REWARDS), torch.tensor(VALUES), mask, lam)
    assert advantages[0].tolist() == pytest.approx(expected)


@given(st.integers(0, 99), st.sampled_from([0.0, 0.5, 0.95, 1.0]), st.sampled_from([0.9, 1.0]))
def test_generalized_advantages_are_the_weighted_sum_of_later_deltas(seed, lam, gamma):
    rewards, values, _, _, mask = _batch(seed)
    noisy = torch.where(mask, values.detach(), math.nan)  # the critic's padding has no part
    advantages = generalized_advantages(rewards.detach(), noisy, mask, lam, gamma)
    for row, length in enumerate(mask.sum(1).tolist()):
        v = [*values[row, :length].tolist(), 0.0]
        delta = [rewards[row, t].item() + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            total = sum((gamma * lam) ** (s - t) * delta[s] for s in range(t, length))
            assert advantages[row, t].item() == pytest.approx(total, abs=1e-12)
        assert (advantages[row, length:] == 0).all()
