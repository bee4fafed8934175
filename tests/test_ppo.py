"""PPO: the critic sees no further than it may, learns, and changes nothing else about the loop."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from test_training import (
    SMALL,
    TOKENIZER,
    FakeWorld,
    ragged_experience,
    task,
    tiny_policy,
    weights,
)

from r1lab.errors import InputError
from r1lab.training import checkpoint
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.ppo import Critic, PPOLearner, judge
from r1lab.training.rollout import Experience
from tests.small_run import Job, coin_task, tiny_model

CONFIG = replace(SMALL, advantage="gae", gae_lambda=0.95)


def learner(config: GRPOConfig = CONFIG, world: World = World()) -> PPOLearner:
    """With a critic that already says something."""
    made = PPOLearner(config, task(), tiny_policy(), TOKENIZER, world)
    torch.manual_seed(1)
    torch.nn.init.normal_(made.critic.head.weight, std=0.05)
    return made


def judged_by(one: PPOLearner, experience: Experience):
    """The experience with the critic's advantages, in place of the group's."""
    with patch.object(Learner, "advantage", lambda *_: experience):
        return one.advantage(experience, {})


def test_a_new_critic_expects_nothing_and_sees_only_what_came_before():
    critic = Critic(tiny_policy().model)
    ids = torch.randint(3, 40, (2, 9))
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0, 3:7] = mask[1, 4:] = True
    assert (critic(ids, mask) == 0).all()
    torch.nn.init.normal_(critic.head.weight)
    before = critic(ids, mask)
    assert (before[0, 4:] == 0).all() and (before[:, :4] != 0).all()
    ids[0, 5] += 1  # the third token of the first completion
    after = critic(ids, mask)
    assert torch.equal(after[0, :3], before[0, :3]) and after[0, 3] != before[0, 3]


def test_lambda_one_gives_the_whitened_return_minus_the_value():
    experience = ragged_experience(SMALL)
    generator = torch.Generator().manual_seed(2)
    values = [torch.rand(len(ids), generator=generator) for ids in experience.completion_ids]
    judged = judge(experience, values, lam=1.0)
    totals = experience.totals.flatten()
    raw = torch.cat([total - own for total, own in zip(totals, values, strict=True)])
    found = torch.cat(judged.token_advantages)
    assert torch.allclose(found, (raw - raw.mean()) / raw.std(), atol=1e-5)
    for total, target in zip(totals, judged.returns, strict=True):
        assert torch.allclose(target, total.expand_as(target), atol=1e-6)


def test_lambda_below_one_fades_the_reward_towards_the_first_token():
    experience = ragged_experience(SMALL)
    judged = judge(experience, [torch.zeros(len(c)) for c in experience.completion_ids], lam=0.9)
    total, target = experience.totals.flatten()[0], judged.returns[0]
    back = torch.arange(len(target) - 1, -1, -1)
    assert torch.allclose(target, total * 0.9**back, atol=1e-6)


def test_a_completion_that_could_not_be_scored_teaches_nothing():
    experience = ragged_experience(SMALL)
    experience.totals[0, 1] = float("nan")
    values = [torch.full((len(ids),), 0.3) for ids in experience.completion_ids]
    judged = judge(experience, values, lam=1.0)
    assert (judged.token_advantages[1] == 0).all()
    assert torch.equal(judged.returns[1], values[1])
    assert all(row.isfinite().all() for row in judged.token_advantages)


def test_the_loss_gets_each_tokens_own_advantage():
    experience = ragged_experience(SMALL)
    judged = judge(experience, [torch.zeros(len(c)) for c in experience.completion_ids], lam=0.9)
    rows = judged.advantages_of([5, 2], 20)
    assert rows.shape == (2, 20) and (rows[0] == 0).all()  # row 5 is an empty completion
    own = judged.token_advantages[2]
    assert torch.equal(rows[1, : len(own)], own) and (rows[1, len(own) :] == 0).all()


class OtherHasSaid(FakeWorld):
    """The last of two processes: what the first one said is already there."""

    def gather(self, value):
        return [self.said, value]


def test_one_and_two_processes_give_the_same_advantages_and_gradients():
    experience = ragged_experience(CONFIG)
    rows = experience.minibatch_rows(0, CONFIG.minibatches)
    single, first, second = (learner(world=FakeWorld(*place)) for place in ((0, 1), (0, 2), (1, 2)))
    second.world = OtherHasSaid(1, 2)
    object.__setattr__(second.world, "said", first.values(experience))
    judged, together = (judged_by(one, experience) for one in (single, second))
    assert 0 < len(second.world.said) < len(judged.returns)
    for one, other in zip(judged.token_advantages, together.token_advantages, strict=True):
        assert torch.allclose(one, other, atol=1e-5)

    def gradients(one: PPOLearner) -> list[torch.Tensor]:
        one.world = FakeWorld(one.world.rank, one.world.size)
        one.update(judged, one.reference_logps(judged), rows)
        return [torch.cat([g.flatten() for g in m.kept]) for m in (one.policy, one.critic)]

    for whole, *shares in zip(*map(gradients, (single, first, second)), strict=True):
        assert whole.abs().max() > 1e-3
        assert (whole - sum(shares)).abs().max() < 1e-6


def test_the_critic_learns_the_returns_of_a_fixed_batch():
    one = learner(replace(CONFIG, gae_lambda=1.0))
    judged = judged_by(one, ragged_experience(CONFIG))
    rows = list(range(len(judged.completion_ids)))
    losses = [one.update_critic(judged, rows) for _ in range(30)]
    assert losses[-1] < losses[0] / 2


def test_the_critic_leaves_the_policy_alone():
    one = learner()
    before = weights(one.policy)
    judged = judged_by(one, ragged_experience(CONFIG))
    one.update_critic(judged, [0, 1, 2])
    assert torch.equal(weights(one.policy), before)


def test_the_same_loop_trains_policy_and_critic():
    one = learner(replace(CONFIG, rollouts=1))
    policy, critic = weights(one.policy), weights(one.critic)
    rows = []
    one.train(lambda _, __, updates: rows.extend(updates))
    assert len(rows) == 2 and all(row["value_loss"] > 0 for row in rows)
    assert not torch.equal(weights(one.policy), policy)
    assert not torch.equal(weights(one.critic), critic)


def test_a_run_stopped_after_every_rollout_ends_with_the_same_weights(tmp_path):
    config = replace(
        CONFIG, rollouts=3, eval_every=9, final_samples=2, checkpoint_every=1, sample_rows=1
    )
    job = Job(tiny_model(tmp_path / "model"), coin_task(tmp_path, slice(62, 64)), config)
    unbroken, broken = (job.start(tmp_path / name) for name in ("unbroken", "broken"))
    assert job.work(unbroken) == 0
    for _ in range(3):
        assert not broken.finished and job.work(broken, stop_after=1) == 0
    assert broken.finished
    folders = [checkpoint.checkpoint_path(run.folder, config.steps) for run in (unbroken, broken)]
    for name in ("model", "reference", "critic"):
        one, other = (load_file(folder / f"{name}.safetensors") for folder in folders)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    moments = [
        checkpoint.load_trainer_state(folder)["critic_optimizer"]["state"] for folder in folders
    ]
    one, other = moments
    assert all(torch.equal(one[at]["exp_avg"], other[at]["exp_avg"]) for at in one)
    losses = [
        [row["value_loss"] for row in run.metrics if row["kind"] == "train"]
        for run in (unbroken, broken)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_a_lambda_outside_its_range_is_refused():
    with pytest.raises(InputError, match="between 0 and 1"):
        replace(CONFIG, gae_lambda=1.5).check(processes=1)


def test_a_group_of_one_is_enough_for_a_critic():
    replace(CONFIG, group_size=1).check(processes=1)
