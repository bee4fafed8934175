"""PPO: the critic sees no further than it may, learns, and changes nothing else about the loop."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from tests.test_training import SMALL, TOKENIZER, FakeWorld, ragged_experience, task, tiny_policy, update, weights

from r1lab.objective import policy_loss
from r1lab.training import checkpoint
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.rollout import Experience
from tests.experiments.ppo import Critic, PPOLearner, judge, value_loss
from tests.small_run import Job, coin_task, stored_tensors, tiny_model


def learner(config: GRPOConfig = SMALL, world: World = World(), lam: float = 0.95) -> PPOLearner:
    """With a critic that already says something."""
    made = PPOLearner(config, task(), tiny_policy(), TOKENIZER, world, gae_lambda=lam)
    torch.manual_seed(1)
    torch.nn.init.normal_(made.critic.head.weight, std=0.05)
    return made


def judged_by(one: PPOLearner, experience: Experience) -> Experience:
    """The experience with the critic's advantages, in place of the group's."""
    judged = replace(experience, ref_logps=one.reference_logps(experience))
    judged.advantages = one.advantage(judged)
    return judged


def critic_loss(one: PPOLearner, experience: Experience, rows: list[int]) -> float:
    """Of the critic before an update of it alone."""
    loss = one.add_loss(experience, rows)["value_loss"]
    one.descend("critic_optimizer")
    return loss


def rows_of(experience: Experience, padded: torch.Tensor) -> list[torch.Tensor]:
    return [row[: len(ids)] for row, ids in zip(padded, experience.completion_ids, strict=True)]


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
    totals = experience.totals.flatten()
    white, returns = judge(totals, values, lam=1.0)
    raw = torch.cat([total - own for total, own in zip(totals, values, strict=True)])
    found = torch.cat(rows_of(experience, white))
    assert torch.allclose(found, (raw - raw.mean()) / raw.std(), atol=1e-5)
    for total, target in zip(totals, rows_of(experience, returns), strict=True):
        assert torch.allclose(target, total.expand_as(target), atol=1e-6)


def test_lambda_below_one_fades_the_reward_towards_the_first_token():
    experience = ragged_experience(SMALL)
    values = [torch.zeros(len(ids)) for ids in experience.completion_ids]
    _, returns = judge(experience.totals.flatten(), values, lam=0.9)
    total, target = experience.totals.flatten()[0], rows_of(experience, returns)[0]
    back = torch.arange(len(target) - 1, -1, -1)
    assert torch.allclose(target, total * 0.9**back, atol=1e-6)


def test_a_completion_that_could_not_be_scored_teaches_nothing():
    experience = ragged_experience(SMALL)
    experience.totals[0, 1] = float("nan")
    values = [torch.full((len(ids),), 0.3) for ids in experience.completion_ids]
    white, returns = judge(experience.totals.flatten(), values, lam=1.0)
    assert (white[1] == 0).all() and white.isfinite().all()
    assert torch.equal(rows_of(experience, returns)[1], values[1])


def test_the_loss_gets_each_tokens_own_advantage():
    one, given = learner(), []
    one.loss = lambda *args, **options: given.append(args[3]) or policy_loss(*args, **options)
    judged = judged_by(one, ragged_experience(SMALL))
    rows = [5, 2]  # an empty completion, and another one
    one.add_loss(judged, rows)
    width = len(judged.completion_ids[2])
    assert sum(map(len, given)) == 2
    for found in given:
        row = 5 if not found.any() else 2
        own = one.token_advantages[row, : found.shape[1]]
        assert found.shape[1] in (0, width) and (found == own).all(1).any()


class OtherHasSaid(FakeWorld):
    """The last of two processes: what the first one said is already there."""

    def gather(self, value):
        return [self.said, value]


def test_one_and_two_processes_give_the_same_advantages_and_gradients():
    experience = ragged_experience(SMALL)
    single, first, second = (learner(world=FakeWorld(*place)) for place in ((0, 1), (0, 2), (1, 2)))
    second.world = OtherHasSaid(1, 2)
    said = first.scored(first.critic, experience, 1)
    object.__setattr__(second.world, "said", said)
    judged = judged_by(single, experience)
    judged_by(second, experience)
    first.token_advantages, first.returns = second.token_advantages, second.returns
    assert 0 < len(second.world.said) < len(single.returns)
    assert torch.allclose(single.token_advantages, second.token_advantages, atol=1e-5)

    def gradients(one: PPOLearner) -> list[torch.Tensor]:
        one.world = FakeWorld(one.world.rank, one.world.size)
        update(one, judged)
        return [torch.cat([g.flatten() for g in m.kept]) for m in (one.policy, one.critic)]

    for whole, *shares in zip(*map(gradients, (single, first, second)), strict=True):
        assert whole.abs().max() > 1e-3
        assert (whole - sum(shares)).abs().max() < 1e-6


def test_the_critic_learns_the_returns_of_a_fixed_batch():
    one = learner(lam=1.0)
    judged = judged_by(one, ragged_experience(SMALL))
    rows = list(range(len(judged.completion_ids)))
    losses = [critic_loss(one, judged, rows) for _ in range(30)]
    assert losses[-1] < losses[0] / 2


def test_the_critic_leaves_the_policy_alone():
    one = learner()
    before = weights(one.policy)
    judged = judged_by(one, ragged_experience(SMALL))
    critic_loss(one, judged, [0, 1, 2])
    assert torch.equal(weights(one.policy), before)


def test_the_same_loop_trains_policy_and_critic():
    one = learner(replace(SMALL, rollouts=1))
    policy, critic = weights(one.policy), weights(one.critic)
    rows = []
    one.train(lambda _, __, updates: rows.extend(updates))
    assert len(rows) == 2 and all(row["value_loss"] > 0 for row in rows)
    assert not torch.equal(weights(one.policy), policy)
    assert not torch.equal(weights(one.critic), critic)


def test_a_run_stopped_after_every_rollout_ends_with_the_same_weights(tmp_path):
    config = replace(SMALL, rollouts=3, eval_every=9, final_samples=2, checkpoint_every=1, sample_rows=1)
    job = Job(tiny_model(tmp_path / "model"), coin_task(tmp_path, slice(62, 64)), config, partial(PPOLearner, gae_lambda=0.95))
    unbroken, broken = (job.start(tmp_path / name) for name in ("unbroken", "broken"))
    assert job.work(unbroken) == 0
    for _ in range(3):
        assert not broken.finished and job.work(broken, stop_after=1) == 0
    assert broken.finished
    folders = [checkpoint.checkpoint_path(run.folder, config.steps) for run in (unbroken, broken)]
    for read in (stored_tensors, lambda folder: load_file(folder / "model.safetensors")):
        one, other = map(read, folders)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    stored = {name.partition(".")[0] for name in stored_tensors(folders[0])}
    assert stored == {"optimizer", "critic_optimizer", "reference", "critic"}
    losses = [
        [row["value_loss"] for row in run.metrics if row["kind"] == "train"] for run in (unbroken, broken)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_the_value_loss_by_hand():
    mask = torch.tensor([[True, True, False]])
    values = torch.tensor([[1.0, 0.0, math.inf]], requires_grad=True)
    returns = torch.tensor([[0.0, 2.0, 9.0]])
    assert value_loss(values, returns, mask, normalizer=5.0).item() == pytest.approx((1 + 4) / 10)
    loss = value_loss(values, returns, mask)
    loss.backward()
    assert loss.item() == pytest.approx((1 + 4) / 4)
    assert values.grad[0].tolist() == pytest.approx([0.5, -1.0, 0.0])
