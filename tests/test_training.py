"""Training: the same gradients for any number of processes, the same weights after any stop."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1lab.errors import InputError
from r1lab.grpo import LossConfig, group_advantages
from r1lab.models.policy import Policy
from r1lab.world.bases import build_model
from r1lab.world.tokenizer import build_tokenizer
from r1lab.rewards import reward_set
from r1lab.stages.reasoning import REASONING
from r1lab.stages.scenarios import SCENARIOS
from r1lab.stages.zero import PRESETS
from r1lab.training import distributed
from r1lab.training.batching import balanced_share, microbatches, pad_rows
from r1lab.training.checkpoint import list_checkpoints, save_checkpoint
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World, default_processes
from r1lab.training.experience import Experience
from r1lab.training.loop import Learner

TOKENIZER = build_tokenizer()
SMALL = GRPOConfig(
    rollouts=2, questions=4, group_size=4, minibatches=2, caps=((0, 24),), learning_rate=1e-3,
    warmup_steps=1, reference_every=3, loss=LossConfig(beta=0.05), microbatch_tokens=256,
)  # fmt: skip


def tiny_policy(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    return Policy(build_model("tiny", len(TOKENIZER), 0, 1))


def learner(config: GRPOConfig = SMALL, policy: Policy | None = None) -> Learner:
    return Learner(config, policy or tiny_policy(), TOKENIZER, World())


def questions(config: GRPOConfig):
    mixture = {"signs/1": 1.0, "signs/2": 1.0}
    return replace(config, mixture=mixture, lang_weights={"en": 1.0}).problems


def run(config: GRPOConfig, rewards=None, policy: Policy | None = None):
    """Train without a run folder; the learner, its experiences and its updates."""
    seen, updates = [], []
    trained = learner(config, policy)

    def keep(rollout, experience, metrics):
        seen.append(experience)
        updates.extend(metrics)
        return False

    trained.train(questions(config), rewards or reward_set("random", seed=config.seed), keep)
    return trained, seen, updates


def weights(module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    size=st.integers(1, 4),
    budget=st.integers(10, 200),
)
def test_every_row_is_worked_on_exactly_once(lengths, size, budget):
    shares = [balanced_share(lengths, rank, size) for rank in range(size)]
    assert sorted(row for share in shares for row in share) == list(range(len(lengths)))
    for share in shares:
        batches = microbatches(lengths, share, budget)
        assert sorted(row for batch in batches for row in batch) == sorted(share)
        for batch in batches:
            padded = max(lengths[row] for row in batch) * len(batch)
            assert padded <= budget or len(batch) == 1


def test_padding_keeps_every_token_and_marks_the_completion():
    ids, mask = pad_rows([[5, 6], [7]], [[8], [9, 10, 11]], pad_id=0)
    assert ids.tolist() == [[5, 6, 8, 0], [7, 9, 10, 11]]
    assert mask.tolist() == [[False, False, True, False], [False, True, True, True]]


def ragged_experience(config: GRPOConfig) -> Experience:
    """Completions of very different lengths, one of them empty."""
    rng = random.Random(0)
    count = config.questions * config.group_size
    prompts = [[3 + rng.randrange(50) for _ in range(rng.randint(2, 9))] for _ in range(count)]
    completions = [[3 + rng.randrange(50) for _ in range(rng.choice((1, 3, 20)))] for _ in prompts]
    completions[5] = []
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(config.questions, config.group_size, generator=generator)
    return Experience(
        problems=[], prompt_ids=prompts, completion_ids=completions, completions=[""] * count,
        finish=["stop"] * count, rewards={}, totals=rewards, advantages=group_advantages(rewards),
        old_logps=[-2 - torch.rand(len(c), generator=generator) for c in completions],
    )  # fmt: skip


class FakeWorld(World):
    """One of several processes, whose gradients the test adds up itself."""

    def sum_gradients(self, model):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        model.kept = [p.grad.clone() for p in model.parameters()]

    def gather(self, value):
        return [value]


@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_same_gradient(aggregation, processes):
    config = replace(SMALL, loss=LossConfig(beta=0.05, aggregation=aggregation))
    experience = ragged_experience(config)
    rows = experience.minibatch_rows(0, config.minibatches)

    def gradient(rank: int, size: int) -> torch.Tensor:
        one = Learner(config, tiny_policy(), TOKENIZER, FakeWorld(rank, size))
        one.update(experience, one.reference_logps(experience), rows)
        return torch.cat([g.flatten() for g in one.policy.kept])

    alone = gradient(0, 1)
    together = sum(gradient(rank, processes) for rank in range(processes))
    assert alone.abs().max() > 1e-3
    assert (alone - together).abs().max() < 1e-6


def test_sampled_and_scored_log_probs_agree_in_the_loop():
    _, seen, updates = run(replace(SMALL, rollouts=1, minibatches=1))
    assert updates[0]["ratio_max"] == pytest.approx(1, abs=1e-5)
    assert updates[0]["clip_fraction"] == 0


def test_the_second_minibatch_is_off_policy():
    _, _, updates = run(replace(SMALL, rollouts=1))
    assert updates[1]["ratio_max"] != pytest.approx(1, abs=1e-4)


def test_the_reference_is_refreshed_on_time():
    trained, _, _ = run(SMALL)  # 4 steps, refreshed after the third
    assert not torch.equal(weights(trained.reference), weights(trained.policy))
    trained, _, _ = run(replace(SMALL, reference_every=4))
    assert torch.equal(weights(trained.reference), weights(trained.policy))


def test_the_cap_is_raised_on_time():
    _, seen, _ = run(replace(SMALL, caps=((0, 3), (2, 20))))
    longest = [max(map(len, experience.completion_ids)) for experience in seen]
    assert longest[0] == 3 and 3 < longest[1] <= 20
    assert "length" in seen[0].finish


def test_a_constant_reward_without_kl_moves_nothing():
    def always_one(prompts, completions, **columns):
        return [1.0] * len(completions)

    from r1lab.rewards import RewardSet

    before = weights(tiny_policy())
    config = replace(SMALL, loss=LossConfig(beta=0.0))
    trained, _, updates = run(config, RewardSet(rewards={"one": (always_one, 1.0)}))
    assert all(update["grad_norm"] == 0 for update in updates)
    assert torch.allclose(weights(trained.policy), before)


def test_a_loss_that_is_not_a_number_is_skipped_then_ends_the_run():
    config = replace(SMALL, skipped_limit=3)
    experience = ragged_experience(config)
    experience.old_logps[0][:] = float("nan")
    broken = learner(config)
    before = weights(broken.policy)
    rows = experience.minibatch_rows(0, 2)
    for _ in range(2):
        assert broken.update(experience, broken.reference_logps(experience), rows)["skipped"] == 1
    assert torch.equal(weights(broken.policy), before)
    with pytest.raises(InputError, match="not a number in 3 updates"):
        broken.update(experience, broken.reference_logps(experience), rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"group_size": 1}, "group of one"),
        ({"questions": 5}, "do not split"),
        ({"arm": "lucky"}, "unknown arm"),
        ({"flops_limit": -1}, "flops_limit is -1"),
        ({"caps": ((4, 20),)}, "begin at step 0"),
    ],
)
def test_settings_that_cannot_train_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        replace(SMALL, **change).check(processes=1)


@pytest.mark.parametrize("cores", [1, 2, 5, 7, 16, 20, 64])
def test_the_presets_train_on_any_number_of_cores(monkeypatch, cores):
    monkeypatch.setattr(distributed.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(distributed.os, "sched_getaffinity", lambda pid: range(cores))
    assert default_processes() == cores
    for config in (PRESETS["cpu"], REASONING, SCENARIOS):
        processes = default_processes(config.questions)
        config.check(processes)
        assert cores / 2 < processes <= cores or processes == config.questions


def test_questions_that_do_not_divide_over_the_processes_are_refused():
    with pytest.raises(InputError, match="do not divide over 3 processes"):
        SMALL.check(processes=3)


def test_a_checkpoint_is_whole_or_absent(tmp_path, monkeypatch):
    policy = tiny_policy()

    def save(step):
        return save_checkpoint(tmp_path, step, policy.model, TOKENIZER, {"step": step}, {})

    save(1)
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match="No space left.*--resume"):
        save(2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000001"]


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    policy = tiny_policy()
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, policy.model, TOKENIZER, {"step": step}, {})
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002", "step-000003"]
