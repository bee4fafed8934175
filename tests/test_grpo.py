"""The objective, against hand-made numbers and against TRL."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1lab.grpo import (
    LossConfig,
    clipped_objective,
    group_advantages,
    groups_that_differ,
    k3,
    loss_normalizer,
    policy_loss,
)

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


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.5, 1.0, 1.28, 0.0),  # good and already much likelier: no further push
        (0.5, 1.0, 0.5, 1.0),  # good but less likely now: pulled back, whatever the clip
        (0.5, -1.0, -0.8, 0.0),  # bad and already much less likely
        (1.5, -1.0, -1.5, -1.0),  # bad but likelier now: pushed down, whatever the clip
        (1.0, 2.0, 2.0, 2.0),
    ],
)
def test_the_clip_stops_only_what_went_far_enough(ratio, advantage, value, slope):
    ratios = torch.tensor([[ratio]], requires_grad=True)
    objective = clipped_objective(ratios, torch.tensor([[advantage]]), 0.2, 0.28)
    objective.sum().backward()
    assert objective.item() == pytest.approx(value)
    assert ratios.grad.item() == pytest.approx(slope)


def test_k3_is_the_kl_divergence_on_average():
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 8, generator=generator).log_softmax(-1)
    truth = (policy.exp() * (policy - reference)).sum()
    values = k3(policy[None], reference[None])[0]
    assert (values >= 0).all()
    assert (policy.exp() * values).sum() == pytest.approx(truth.item(), abs=1e-6)


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


def test_the_three_aggregations_by_hand():
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    zeros = torch.zeros(2, 4)
    advantages = torch.tensor([1.0, -1.0])
    expected = {"sequence": 0.0, "token": -(4 - 2) / 6, "constant": -(4 - 2) / 8}
    for aggregation, value in expected.items():
        config = LossConfig(aggregation=aggregation, beta=0.0)
        loss, _ = policy_loss(zeros, zeros, None, advantages, mask, config)
        assert loss.item() == pytest.approx(value)


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


def test_a_drift_of_the_sampler_is_weighed_and_capped():
    logps = torch.full((1, 2), -1.0, requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    rollout = torch.tensor([[-1.0, -4.0]])  # the second token was sampled as if 20 times rarer
    loss, _ = policy_loss(
        logps, logps.detach(), None, torch.ones(1), mask, FREE, rollout_logps=rollout
    )
    loss.backward()
    assert logps.grad[0].tolist() == pytest.approx([-0.5, -1.0])


def test_on_policy_the_gradient_is_reinforce():
    logps, _, _, advantages, mask = _batch(3)
    loss, _ = policy_loss(logps, logps.detach(), None, advantages, mask, LossConfig(beta=0.0))
    loss.backward()
    expected = -torch.where(mask, advantages[:, None].expand_as(logps), 0.0) / mask.sum()
    assert torch.allclose(logps.grad, expected)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("sequence", "grpo"), ("token", "bnpo"), ("constant", "dr_grpo")]
)
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_loss_and_gradient_equal_those_of_trl(ours, theirs, beta):
    trl = pytest.importorskip("trl", reason="TRL is a test dependency: pip install -e .[bench]")
    from types import SimpleNamespace
    from unittest.mock import MagicMock

    logps, old, ref, advantages, mask = _batch(4)
    keep = mask.sum(1) > 0  # TRL divides by the number of rows, empty ones included
    logps_ours = logps.detach()[keep].clone().requires_grad_()
    old, ref, advantages, mask = old[keep], ref[keep], advantages[keep], mask[keep]
    config = LossConfig(aggregation=ours, beta=beta)
    loss, _ = policy_loss(logps_ours, old, ref, advantages, mask, config)
    loss.backward()

    logps_trl = logps_ours.detach().clone().requires_grad_()
    trainer = MagicMock()
    trainer._get_per_token_logps_and_entropies.return_value = (
        logps_trl, torch.zeros_like(logps_trl), None
    )  # fmt: skip
    trainer.configure_mock(
        beta=beta, epsilon_low=0.2, epsilon_high=0.28, loss_type=theirs, top_entropy_quantile=1.0,
        importance_sampling_level="token", off_policy_mask_threshold=None, use_vllm=False,
        use_bias_correction_kl=False, max_completion_length=mask.shape[1],
        current_gradient_accumulation_steps=1, aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False),
        accelerator=MagicMock(num_processes=1, gather=lambda x: x),
    )  # fmt: skip
    trainer.model.training = True
    ids = torch.ones_like(mask, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids,
        "completion_mask": mask.long(), "advantages": advantages,
        "old_per_token_logps": old, "ref_per_token_logps": ref,
    }  # fmt: skip
    other = trl.GRPOTrainer._compute_loss(trainer, MagicMock(), inputs)
    other.backward()
    assert other.item() == pytest.approx(loss.item(), abs=1e-6)
    assert torch.allclose(logps_trl.grad, logps_ours.grad, atol=1e-6)
