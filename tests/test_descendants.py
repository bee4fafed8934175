"""GRPO's descendants: each equals TRL's where TRL has it, and what is worked by hand."""

from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file

from descendants import (
    DAPO,
    RLOO,
    DynamicSampling,
    MaskedTruncation,
    SkipSilent,
    cispo,
    drift_mask,
    leave_one_out,
    off_policy_mask,
    rloo,
    soft_overlong,
)
from r1lab.errors import InputError
from r1lab.objective import LossConfig, group_advantages, policy_loss
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from tests.small_run import Job, coin_task, tiny_model
from tests.test_objective_trl import ragged_batch, trl, trl_loss
from trl.rewards import get_soft_overlong_punishment
from tests.test_training import SMALL, TOKENIZER, ragged_experience, run, task, tiny_policy, weights

SEEDS = range(5)
PLAIN = LossConfig(beta=0.0)


def ours(batch, loss, config: LossConfig, rollout=None, rows=slice(None)):
    """A loss of ours on a ragged batch, or on some rows of it: (loss, gradient of all rows)."""
    logps = batch["logps"].clone().requires_grad_()
    value, metrics = loss(
        logps[rows], batch["old"][rows], batch["ref"][rows], batch["advantages"][rows],
        batch["mask"][rows], config, rollout_logps=rollout,
    )  # fmt: skip
    assert {"tokens", "kl", "clip_fraction", "ratio_max"} <= metrics.keys()
    return value.item(), torch.autograd.grad(value, logps)[0]


def same(one, other):
    assert one[0] == pytest.approx(other[0], abs=1e-10)
    assert torch.allclose(one[1], other[1], atol=1e-10)
    assert one[1].abs().max() > 1e-3, "a comparison of nothing"


# RLOO


def test_the_baseline_is_the_mean_of_the_others():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3], [0.0, 3.0, 6.0, 0.0]])
    by_hand = [[2 / 3, -2 / 3, -2 / 3, 2 / 3], [0.0] * 4, [-3.0, 1.0, 5.0, -3.0]]
    assert torch.allclose(leave_one_out(rewards), torch.tensor(by_hand))
    centered = group_advantages(rewards, divide_by_std=False)
    assert torch.allclose(leave_one_out(rewards), centered * 4 / 3), "GRPO's without the std"


def test_what_could_not_be_scored_has_no_part_in_the_baseline():
    nan = torch.nan
    rewards = torch.tensor([[1.0, nan, 0.0, 0.5], [nan, nan, 2.0, nan], [nan] * 4])
    by_hand = [[0.75, 0.0, -0.75, 0.0], [0.0] * 4, [0.0] * 4]
    assert torch.allclose(leave_one_out(rewards), torch.tensor(by_hand))


def trl_rloo_loss(batch, config: LossConfig):
    """`RLOOTrainer._compute_loss` on our tensors: (loss, gradient)."""
    logps, mask = batch["logps"].clone().requires_grad_(), batch["mask"]
    trainer = MagicMock()
    trainer._get_per_token_logps_and_entropies.return_value = logps, torch.zeros_like(logps), None
    trainer.configure_mock(
        epsilon_low=config.clip_low, epsilon_high=config.clip_high, aux_loss_enabled=False,
        accelerator=MagicMock(gather=lambda x: x, reduce=lambda x, reduction: x),
    )  # fmt: skip
    ids = torch.ones_like(mask, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids,
        "completion_mask": mask.long(), "advantages": batch["advantages"],
        "old_logps": (batch["old"] * mask).sum(1),
    }  # fmt: skip
    loss = trl.RLOOTrainer._compute_loss(trainer, MagicMock(), inputs)
    return loss.item(), torch.autograd.grad(loss, logps)[0]


@pytest.mark.parametrize("clip", [(0.2, 0.28), (10.0, 10.0)], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_rloo_s_loss_equals_that_of_trl(seed, clip):
    batch, config = ragged_batch(seed), LossConfig(*clip, beta=0.0, aggregation="sequence")
    same(ours(batch, rloo, config), trl_rloo_loss(batch, config))


def test_rloo_takes_a_completion_as_one_action():
    """Two tokens that became 1.5 and 1.2 times as likely: the answer is 1.8 times as likely."""
    old = torch.zeros(1, 3)
    mask, advantages = torch.tensor([[True, True, False]]), torch.tensor([2.0])
    logps = (torch.tensor([[1.5, 1.2, 9.0]]).log()).requires_grad_()
    config = replace(PLAIN, clip_high=1.0)
    loss, metrics = rloo(logps, old, None, advantages, mask, config, normalizer=1.0)
    assert loss.item() == pytest.approx(-3.6) and metrics["ratio_max"].item() == pytest.approx(1.8)
    assert torch.autograd.grad(loss, logps)[0][0].tolist() == pytest.approx([-3.6, -3.6, 0.0])
    clipped, _ = rloo(logps, old, None, advantages, mask, PLAIN, normalizer=1.0)
    assert clipped.item() == pytest.approx(-2.56) and not clipped.isnan()
    assert torch.autograd.grad(clipped, logps)[0].abs().max() == 0


def test_rloo_s_learner_leaves_one_out():
    experience = ragged_experience(SMALL)
    one = RLOO(SMALL, task(), tiny_policy(), TOKENIZER, World(), loss=rloo)
    assert torch.equal(one.advantage(experience), leave_one_out(experience.totals))


# CISPO


@pytest.mark.parametrize("beta", [0.0, 0.05])
@pytest.mark.parametrize("cap", [1.1, 1.28, 5.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_cispo_equals_that_of_trl(seed, cap, beta):
    batch = ragged_batch(seed)
    for drifts in (False, True):
        config = LossConfig(clip_high=cap - 1, beta=beta)
        drift = (batch["old"] - batch["rollout"]).exp().clamp(max=2.0) if drifts else None
        theirs = trl_loss(batch, config, "cispo", batch["advantages"], drift, epsilon_high=cap)
        same(ours(batch, cispo, config, batch["rollout"] if drifts else None), theirs)


def test_beyond_the_cap_cispo_s_tokens_still_learn():
    """Ratios 0.5, 1 and 3 under a cap of 1.28; the clip would silence the last one for A > 0."""
    logps = torch.log(torch.tensor([[0.25, 0.5, 0.9]])).requires_grad_()
    old = logps.detach() - torch.log(torch.tensor([[0.5, 1.0, 3.0]]))
    mask, advantages = torch.ones(1, 3, dtype=torch.bool), torch.tensor([2.0])
    loss, metrics = cispo(logps, old, None, advantages, mask, PLAIN)
    (gradient,) = torch.autograd.grad(loss, logps)
    assert gradient[0].tolist() == pytest.approx([-1 / 3, -2 / 3, -2.56 / 3])
    assert metrics["clip_fraction"] == 1 and metrics["tokens"] == 3
    clipped, _ = policy_loss(logps, old, None, advantages, mask, PLAIN)
    (gradient,) = torch.autograd.grad(clipped, logps)
    assert gradient[0].tolist() == pytest.approx([-1 / 3, -2 / 3, 0.0])


def test_on_policy_all_losses_pull_alike():
    batch = ragged_batch(0)
    batch["old"] = batch["logps"]
    _, gradient = ours(batch, policy_loss, PLAIN)
    for loss in (cispo, off_policy_mask(0.1), drift_mask()):
        assert torch.allclose(ours(batch, loss, PLAIN)[1], gradient)
    constant = replace(PLAIN, aggregation="constant")
    whole = ours(batch, rloo, constant)[1]
    assert torch.allclose(whole, ours(batch, policy_loss, constant)[1])


# Masks


@pytest.mark.parametrize("beta", [0.0, 0.05])
@pytest.mark.parametrize("limit", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_off_policy_mask_equals_that_of_trl(seed, limit, beta):
    batch, config = ragged_batch(seed, rows=24), LossConfig(beta=beta)
    for rollout in (None, batch["rollout"]):
        drift = None if rollout is None else (batch["old"] - rollout).exp().clamp(max=2.0)
        theirs = trl_loss(
            batch, config, "dapo", batch["advantages"], drift, off_policy_mask_threshold=limit
        )
        same(ours(batch, off_policy_mask(limit), config, rollout), theirs)
        if limit == 0.0:
            without = ours(batch, policy_loss, config, rollout)
            assert not torch.allclose(without[1], theirs[1], atol=1e-6), "something was dropped"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_drift_mask_equals_that_of_trl(seed):
    batch, config = ragged_batch(seed, rows=24), LossConfig(beta=0.05)
    drift = torch.where(batch["mask"], batch["old"] - batch["rollout"], 0.0)
    apart = drift.sum(1, keepdim=True).exp()
    assert 0 < (apart > 3).sum() < 24
    drift = apart.masked_fill(apart > 3, 0.0)
    theirs = trl_loss(batch, config, "dapo", batch["advantages"], drift)
    same(ours(batch, drift_mask(3.0), config, batch["rollout"]), theirs)


@pytest.mark.parametrize("seed", SEEDS)
def test_leaving_out_what_was_cut_equals_trl_s_mask(seed):
    batch, config, cut = ragged_batch(seed), LossConfig(beta=0.05), [1, 4]
    masked = {**batch, "mask": batch["mask"].clone()}
    masked["mask"][cut] = False
    ended = [row for row in range(6) if row not in cut]
    theirs = trl_loss(masked, config, "dapo", batch["advantages"], None)
    same(ours(batch, policy_loss, config, rows=ended), theirs)


def test_the_learner_leaves_out_what_was_cut():
    experience = ragged_experience(SMALL)
    experience.finish[2] = experience.finish[6] = "length"
    ended = [row for row in range(8) if row not in (2, 6)]
    masking = MaskedTruncation(SMALL, task(), tiny_policy(), TOKENIZER, World())
    plain = Learner(SMALL, task(), tiny_policy(), TOKENIZER, World())
    experience.ref_logps = plain.reference_logps(experience)
    sums = masking.add_loss(experience, list(range(8)))
    assert sums == plain.add_loss(experience, ended)
    for one, other in zip(masking.policy.parameters(), plain.policy.parameters()):
        assert torch.equal(one.grad, other.grad)


def test_where_all_answers_were_cut_nothing_is_learned():
    experience, before = ragged_experience(SMALL), weights(tiny_policy())
    experience.finish = ["length"] * len(experience.finish)
    masking = MaskedTruncation(SMALL, task(), tiny_policy(), TOKENIZER, World())
    metrics = masking.follow_gradient(masking.add_loss(experience, list(range(8))))
    assert metrics["loss"] == 0 and torch.equal(weights(masking.policy), before)


# Silent groups


def silent_experience(config: GRPOConfig):
    """Groups of four with one prompt each, of which the first and third are all right."""
    experience = ragged_experience(config)
    experience.completion_ids[5] = [7, 8]
    experience.old_logps[5] = torch.tensor([-2.0, -3.0])
    experience.prompt_ids = [experience.prompt_ids[row // 4 * 4] for row in range(16)]
    experience.totals = torch.tensor([[1.0] * 4, [1.0, 0.0, 0.0, 0.0]] * 2)
    experience.advantages = group_advantages(experience.totals)
    return experience


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
@pytest.mark.parametrize("layout", [{}, {"pack": True}, {"share_prompts": True}])
def test_the_gradient_is_the_same_without_the_silent_groups(aggregation, layout):
    config = replace(SMALL, loss=LossConfig(beta=0.0, aggregation=aggregation), **layout)
    experience, rows = silent_experience(config), list(range(8))
    skipping, plain = (
        kind(config, task(), tiny_policy(), TOKENIZER, World()) for kind in (SkipSilent, Learner)
    )
    sums, whole = skipping.add_loss(experience, rows), plain.add_loss(experience, rows)
    answers = [len(ids) for ids in experience.completion_ids]
    assert sums["tokens"] == sum(answers[4:8]) < whole["tokens"] == sum(answers[:8])
    assert sums["loss"] == pytest.approx(whole["loss"], abs=1e-6)
    largest = 0.0
    for one, other in zip(skipping.policy.parameters(), plain.policy.parameters()):
        assert torch.allclose(one.grad, other.grad, atol=1e-7)
        largest = max(largest, other.grad.abs().max().item())
    assert largest > 1e-4, "a comparison of nothing"
    left_out = sum(experience.lengths[:4] + experience.lengths[8:12])
    saved = plain.flops(experience) - skipping.flops(experience)
    assert saved == 6 * plain.policy.model.num_parameters() * left_out


def test_where_all_groups_are_silent_nothing_is_read_or_learned():
    config, before = replace(SMALL, loss=PLAIN), weights(tiny_policy())
    experience = silent_experience(config)
    experience.advantages = torch.zeros(4, 4)
    skipping = SkipSilent(config, task(), tiny_policy(), TOKENIZER, World())
    metrics = skipping.follow_gradient(skipping.add_loss(experience, list(range(8))))
    assert metrics["loss"] == metrics["grad_norm"] == 0
    assert torch.equal(weights(skipping.policy), before)


def test_silent_groups_are_not_skipped_where_a_kl_term_pulls_on_them():
    with pytest.raises(InputError, match="beta is 0.05, so silent groups .* give beta 0"):
        config = replace(SMALL, loss=LossConfig(beta=0.05))
        SkipSilent(config, task(), tiny_policy(), TOKENIZER, World())


# Soft overlong penalty


def test_the_penalty_for_length_equals_that_of_trl():
    theirs = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    answers = [[7] * length for length in range(1, 130)]
    assert soft_overlong(100, 20)(answers) == pytest.approx(theirs(answers))
    answers = [[1] * length for length in (80, 90, 100, 101)]
    assert soft_overlong(100, 20)(answers, solution=["3"] * 4) == [0.0, -0.5, -1.0, -1.0]


# Dynamic sampling


def every_fourth(prompts, completion_ids, **columns):
    """Right by chance: about a quarter of all answers, so that a third of the groups is silent."""
    return [float(sum(ids) % 4 == 0) for ids in completion_ids]


def alternating(prompts, completion_ids, **columns):
    """No group is silent."""
    return [float(place % 2) for place in range(len(prompts))]


def hopeless(prompts, **columns):
    return [0.0] * len(prompts)


LONGER = replace(SMALL, rollouts=6, loss=LossConfig(beta=0.05))


def dynamic(reward, config: GRPOConfig = LONGER, kind=DynamicSampling):
    """A run with dynamic sampling: the learner, its experiences and its updates."""
    seen, updates = [], []
    one = kind(config, task({"accuracy": reward}), tiny_policy(), TOKENIZER, World())
    one.train(lambda _, experience, metrics: seen.append(experience) or updates.extend(metrics))
    return one, seen, updates


def test_what_is_drawn_again_is_scored_in_any_number(monkeypatch):
    """Outside of float32 the policy scores it, and it need not split into mini-batches."""
    one, seen, _ = dynamic(every_fourth, replace(LONGER, precision="bfloat16", group_size=3, minibatches=4))
    assert seen and all(len(row) == len(ids) for row, ids in zip(seen[0].old_logps, seen[0].completion_ids))


@pytest.mark.parametrize("kind", [DynamicSampling, DAPO])
def test_silent_groups_are_replaced_until_all_is_drawn_that_plain_grpo_draws(kind):
    one, seen, updates = dynamic(every_fourth, kind=kind)
    assert one.budget == 6 * 4 * 4 and 5 * 4 * 4 < one.drawn == updates[-1]["drawn"] <= one.budget
    assert 2 <= len(seen) < 6 and one.step == one.config.steps == 2 * len(seen)
    assert all(not one.silent(experience) for experience in seen[:-1])
    _, plain, _ = run(LONGER, {"accuracy": every_fourth})
    assert any(one.silent(experience) for experience in plain), "there was something to replace"
    assert [update["drawn"] for update in updates] == sorted(update["drawn"] for update in updates)


def test_what_replaces_a_group_is_whole():
    """Its questions, answers, scores and log-probs belong together, and are new."""
    one, seen, _ = dynamic(every_fourth)
    first = seen[0]
    assert one.dropped_tokens >= 0
    _, plain, _ = run(LONGER, {"accuracy": every_fourth})
    speaking = [g for g in range(4) if g not in one.silent(plain[0])]
    assert 0 < len(speaking) < 4
    for group in range(4):
        rows = slice(4 * group, 4 * group + 4)
        stays = first.completion_ids[rows] == plain[0].completion_ids[rows]
        assert stays == (group in speaking)
        assert first.rewards["accuracy"][rows] == every_fourth(None, first.completion_ids[rows])
        assert first.rewards["accuracy"][rows] == first.totals[group].tolist()
        assert len(set(map(tuple, first.prompt_ids[rows]))) == 1
        assert len({problem.id for problem in first.problems[rows]}) == 1
    fresh = DynamicSampling(LONGER, task(), tiny_policy(), TOKENIZER, World())
    for row, logps in fresh.scored(fresh.policy, first).items():
        assert torch.allclose(logps, first.old_logps[row], atol=1e-4), "what was sampled is scored"
        assert torch.allclose(first.ref_logps[row], logps, atol=1e-5), "the first reference"


def test_without_silent_groups_it_is_plain_grpo():
    one, seen, _ = dynamic(alternating)
    plain, _, _ = run(LONGER, {"accuracy": alternating})
    assert len(seen) == 6 and torch.equal(weights(one.policy), weights(plain.policy))
    assert one.flops(seen[-1]) == plain.flops(seen[-1])


def test_where_every_group_is_silent_the_budget_ends_it():
    one, seen, _ = dynamic(hopeless)
    assert one.drawn == one.budget and len(seen) == 1
    per_token = 2 * one.policy.model.num_parameters()
    assert one.flops(seen[0]) > super(DynamicSampling, one).flops(seen[0]) + 5 * 16 * per_token


def test_a_stopped_run_resumes_to_the_same_weights_and_count(tmp_path):
    world = replace(coin_task(tmp_path), rewards={"accuracy": every_fourth})
    config = replace(LONGER, checkpoint_every=1, eval_every=9, final_samples=1)
    job = Job(tiny_model(tmp_path / "model"), world, config, DynamicSampling)
    states = []
    for name, stops in (("whole", []), ("stopped", [1, 1])):
        folder = job.start(tmp_path / name)
        for rollouts in (*stops, None):
            assert job.work(folder, rollouts) == 0
        drawn = [row["drawn"] for row in folder.metrics if row["kind"] == "train"]
        states.append((drawn, load_file(folder.model / "model.safetensors")))
    assert states[0][0] == states[1][0] and 80 < states[0][0][-1] <= 96
    assert all(torch.equal(value, states[1][1][name]) for name, value in states[0][1].items())


def test_dapo_whole_trains():
    rewards = {"accuracy": every_fourth, "overlong": soft_overlong(24, 8)}
    config = replace(LONGER, loss=LossConfig(clip_high=0.28, beta=0.0))
    one = DAPO(config, task(rewards), tiny_policy(), TOKENIZER, World())
    one.train()
    assert not torch.equal(weights(one.policy), weights(tiny_policy()))
