"""Training: the same gradients for any number of processes, the same weights after any stop."""

import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1lab import machine
from r1lab.errors import InputError
from r1lab.files import SHIPPED
from r1lab.objective import LossConfig, group_advantages
from r1lab.models.policy import Policy
from r1lab.world.bases import build_model, build_tokenizer
from r1lab.stages.rl_stages import REASONING, SCENARIOS
from r1lab.task import Problem, Task, load_problems
from r1lab.run import MetricsLog, Run
from r1lab.training import processes
from r1lab.training.batching import balanced_share, microbatches, pad_rows
from r1lab.training.checkpoint import save_checkpoint
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.rollout import Experience
from r1lab.training.loop import Learner
from r1lab.training.processes import default_processes
from r1lab.training.recorder import work
from r1lab.training.rl import fitting
from r1lab.world.small_world import SmallWorld
from tests.small_run import stored_tensors

TOKENIZER = build_tokenizer()
SMALL = GRPOConfig.preset(
    "cpu", rollouts=2, questions=4, group_size=4, minibatches=2, caps=((0, 24),), learning_rate=1e-3,
    warmup_steps=1, reference_every=3, loss=LossConfig(beta=0.05), microbatch_tokens=256,
)  # fmt: skip


def tiny_policy(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    return Policy(build_model("tiny", len(TOKENIZER)))


def task(rewards: dict | None = None) -> Task:
    """Easy puzzles in English, paid by a coin or by these rewards."""
    world = SmallWorld({"signs/1": 1.0, "signs/2": 1.0}, {"en": 1.0}, arm="random")
    return replace(world.task(), rewards=rewards or world.rewards())


def learner(config: GRPOConfig = SMALL, policy: Policy | None = None, rewards: dict | None = None) -> Learner:
    return Learner(config, task(rewards), policy or tiny_policy(), TOKENIZER, World())


def run(config: GRPOConfig, rewards: dict | None = None, policy: Policy | None = None):
    """Train without a run folder; the learner, its experiences and its updates."""
    seen, updates = [], []
    trained = learner(config, policy, rewards)

    def keep(rollout, experience, metrics):
        seen.append(experience)
        updates.extend(metrics)
        return False

    trained.train(keep)
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
        problems=[], prompts=[], prompt_ids=prompts, completion_ids=completions, completions=[""] * count,
        finish=["stop"] * count, rewards={}, totals=rewards, advantages=group_advantages(rewards),
        old_logps=[-2 - torch.rand(len(c), generator=generator) for c in completions],
    )  # fmt: skip


def update(one: Learner, experience: Experience) -> dict[str, float]:
    """An update on the first mini-batch; its metrics."""
    experience.ref_logps = one.reference_logps(experience)
    rows = experience.minibatches(one.config.minibatches)[0]
    return one.follow_gradient(one.add_loss(experience, rows))


class FakeWorld(World):
    """One of several processes, whose gradients the test adds up itself."""

    def sum_gradients(self, model):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        model.kept = [p.grad.clone() for p in model.parameters()]

    def gather(self, value):
        return [value]


@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_gives_the_same_gradient(aggregation, processes):
    config = replace(SMALL, loss=LossConfig(beta=0.05, aggregation=aggregation))
    experience = ragged_experience(config)

    def gradient(rank: int, size: int) -> torch.Tensor:
        one = Learner(config, task(), tiny_policy(), TOKENIZER, FakeWorld(rank, size))
        update(one, experience)
        return torch.cat([g.flatten() for g in one.policy.kept])

    alone = gradient(0, 1)
    together = sum(gradient(rank, processes) for rank in range(processes))
    assert alone.abs().max() > 1e-3
    assert (alone - together).abs().max() < 1e-6


def test_sampled_and_scored_log_probs_agree_in_the_loop_and_the_second_minibatch_is_off_policy():
    _, _, (first, second) = run(replace(SMALL, rollouts=1))
    assert first["ratio_max"] == pytest.approx(1, abs=1e-5) and first["clip_fraction"] == 0
    assert second["ratio_max"] != pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("every", "same"), [(3, False), (4, True)])  # of 4 steps
def test_the_reference_is_refreshed_on_time(every, same):
    trained, _, _ = run(replace(SMALL, reference_every=every))
    assert torch.equal(weights(trained.modules["reference"]), weights(trained.policy)) is same


def test_the_cap_is_raised_on_time():
    _, seen, _ = run(replace(SMALL, caps=((0, 3), (2, 20))))
    longest = [max(map(len, experience.completion_ids)) for experience in seen]
    assert longest[0] == 3 and 3 < longest[1] <= 20
    assert "length" in seen[0].finish


def test_a_constant_reward_without_kl_moves_nothing():
    def always_one(prompts, completions, **columns):
        return [1.0] * len(completions)

    before = weights(tiny_policy())
    config = replace(SMALL, loss=LossConfig(beta=0.0))
    trained, _, updates = run(config, {"one": always_one})
    assert all(update["grad_norm"] == 0 for update in updates)
    assert torch.allclose(weights(trained.policy), before)


def test_a_loss_that_is_not_a_number_is_skipped_then_ends_the_run():
    config = replace(SMALL, skipped_limit=3)
    experience = ragged_experience(config)
    experience.old_logps[0][:] = float("nan")
    broken = learner(config)
    before = weights(broken.policy)
    for _ in range(2):
        assert update(broken, experience)["skipped"] == 1
    assert torch.equal(weights(broken.policy), before)
    with pytest.raises(InputError, match="not a number in 3 updates"):
        update(broken, experience)


@pytest.mark.parametrize(("change", "words"), [
    ({"group_size": 1}, "group of one"),
    ({"questions": 5}, "do not split"),
    ({"flops_limit": -1}, "flops_limit is -1; give at least 0"),
    ({"learning_rate": -1.0}, "learning_rate is -1.0; give at least 0"),
    ({"warmup_steps": -1}, "warmup_steps is -1; give"),
    ({"max_grad_norm": 0.0}, r"max_grad_norm \(0\) must be above 0"),
    ({"temperature": 0.0}, r"temperature \(0\) and .* must be above 0"),
    ({"rollouts": 0}, "rollouts is 0"),
    ({"caps": ((4, 20),)}, "begin at step 0"),
])  # fmt: skip
def test_settings_that_cannot_train_are_refused_by_the_learner_too(change, words):
    with pytest.raises(InputError, match=words):
        replace(SMALL, **change).check(processes=1)
    with pytest.raises(InputError, match=words):
        learner(replace(SMALL, **change))


def test_a_run_without_warmup_learns_at_the_full_rate_at_once():
    _, _, updates = run(replace(SMALL, warmup_steps=0, rollouts=1))
    assert updates[0]["lr"] == SMALL.learning_rate


def test_without_a_kl_term_there_is_no_reference_policy(tmp_path):
    trained = learner(replace(SMALL, loss=LossConfig(beta=0.0)))
    assert trained.modules == {}
    trained.save(tmp_path, {})
    stored = stored_tensors(next(tmp_path.glob("checkpoints/*")))
    assert stored and not any(name.startswith("reference.") for name in stored)


def test_another_objective_is_ten_lines():
    """A user's own: REINFORCE, without ratio and clip."""

    def reinforce(logps, old, ref, advantages, mask, config, *, rollout_logps, normalizer):
        loss = -(torch.where(mask, logps, 0.0) * advantages[:, None]).sum() / normalizer
        zero = torch.zeros(())
        return loss, {"tokens": mask.sum(), "kl": zero, "clip_fraction": zero, "ratio_max": zero}

    config = replace(SMALL, rollouts=1, minibatches=1, loss=LossConfig(beta=0.0))
    plain, _, _ = run(config)
    own = Learner(config, task(), tiny_policy(), TOKENIZER, World(), loss=reinforce)
    own.train()
    # On-policy, the clipped objective has the same gradient.
    assert (weights(own.policy) - weights(plain.policy)).abs().max() < 1e-5
    assert not torch.equal(weights(own.policy), weights(tiny_policy()))


def test_unknown_arms_are_refused():
    with pytest.raises(InputError, match="no arm 'lucky'; choose one of true, random, format"):
        SmallWorld(arm="lucky").task()


@pytest.mark.parametrize(("texts", "expected"), [
    ([], 64), (["max 100000\n"], 64), (["200000 100000\n"], 2), (["50000 100000\n"], 1),
    (["200000\n", "100000\n"], 2), (["-1\n", "100000\n"], 64),
])  # fmt: skip
@pytest.mark.parametrize("affinity", [True, False])
def test_cores_are_those_of_the_container(texts, expected, affinity, tmp_path, monkeypatch):
    """Version 2 of cgroups has one file, version 1 has two; macOS has neither, and no affinity."""
    names = machine.QUOTAS[len(texts) > 1]
    (tmp_path / "cpu").mkdir()
    for name, text in zip(names, texts):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 64)
    if affinity:
        monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: range(64))
    else:
        monkeypatch.delattr(machine.os, "sched_getaffinity")
    assert machine.cores() == expected


@pytest.mark.parametrize(("name", "text", "most"), [
    ("memory.max", "1048576\n", 2**20), ("memory.max", "max\n", None),
    ("memory/memory.limit_in_bytes", "1048576\n", 2**20),
    ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),  # how version 1 writes no limit
])  # fmt: skip
def test_memory_is_that_of_the_container(name, text, most, tmp_path, monkeypatch):
    whole = machine.memory_bytes()
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert machine.memory_bytes() == (most or whole)


@pytest.mark.parametrize("cores", [1, 2, 5, 7, 16, 20, 64])
def test_the_presets_train_on_any_number_of_cores(monkeypatch, cores):
    monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(processes, "cores", lambda: cores)
    assert default_processes() == cores
    for config in (GRPOConfig.preset("cpu"), REASONING.rl, SCENARIOS.rl):
        number = default_processes(config.questions)
        config.check(number)
        assert cores / 2 < number <= cores or number == config.questions


def test_questions_that_do_not_divide_over_the_processes_are_refused():
    with pytest.raises(InputError, match="do not divide over 3 processes"):
        SMALL.check(processes=3)


def test_a_checkpoint_is_whole_or_absent(tmp_path, monkeypatch):
    policy = tiny_policy()

    def save(step):
        return save_checkpoint(World(), tmp_path, step, policy, TOKENIZER, {"step": step})

    save(1)
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match="No space left.*--resume"):
        save(2)
    assert [path.name for path in Run(tmp_path).checkpoints] == ["step-000001"]


@pytest.mark.parametrize(
    ("accuracies", "best", "kept"),
    [({}, 4, [3, 4]), ({1: 0.3, 2: 0.5, 3: 0.4}, 2, [2, 3, 4]), ({1: 0.3, 3: 0.3}, 3, [3, 4])],
)
def test_the_newest_checkpoints_and_the_best_are_kept(tmp_path, accuracies, best, kept):
    policy, run = tiny_policy(), Run(tmp_path)
    for step in range(1, 5):
        if step in accuracies:
            row = {"kind": "eval", "step": step, "pass_at_1": accuracies[step]}
            MetricsLog(tmp_path / "metrics.jsonl", step).write(row)
        save_checkpoint(World(), tmp_path, step, policy, TOKENIZER, {"step": step})
    assert [path.name for path in run.checkpoints] == [f"step-00000{step}" for step in kept]
    assert run.best == run.folder / f"checkpoints/step-00000{best}"


PUZZLES = [Problem(f"q{n}", "own", 1, "en", "make 5 from 3,2 " * n, "5") for n in range(1, 7)]


@pytest.mark.parametrize("problems", [PUZZLES, lambda seed, rollout, count: PUZZLES[:count]])
def test_questions_without_room_for_an_answer_are_named_before_the_run_and_refused_or_left_out(problems):
    config = replace(SMALL, caps=((0, 495),), questions=2)
    asked = Task("own", problems, PUZZLES[-2:], {}, template="small")
    with pytest.raises(InputError, match="of . questions .* 512 tokens .* have 495: q3 has .* q6 has") as error:
        fitting(replace(asked, test=PUZZLES[4:]), replace(config, questions=4), TOKENIZER, 512)
    assert "--overlong skip" in str(error.value)
    left, said = fitting(asked, replace(config, overlong="skip"), TOKENIZER, 512)
    assert [one.id for one in left.draw(0, 0, 2)] == ["q1", "q2"] or not callable(problems)
    assert {one.id for one in left.draw(0, 0, 2)} == {"q1", "q2"} and not left.test and "q5 has" in said
    assert fitting(asked, config, TOKENIZER, math.inf) == (asked, "")


def test_the_time_left_is_right_within_a_third_after_a_minute():
    """The bar goes by the work done: a stored run's seconds, as they passed, and what it would have said."""
    run = Run(SHIPPED / "runs/zero")
    config, test = GRPOConfig.of_run(run.config), load_problems(SHIPPED / "test_signs.jsonl")
    summary, evals = run.summary, {row["step"]: row["mean_tokens"] for row in run.evals}
    ends = {0, config.steps}
    answers = {step: 16 * len(test) if step in ends else 16 * 5 * config.eval_problems for step in evals}
    tokens = sum(evals[step] * answers[step] for step in evals)
    pace = (summary["wall_seconds"] - summary["train_seconds"]) / tokens  # of the evaluations
    passed = evals[0] * answers[0] * pace
    for row in (row for row in run.metrics if row["kind"] == "train"):
        passed += row["seconds"] + pace * evals.get(row["step"], 0) * answers.get(row["step"], 0)
        if 60 < passed < 120:
            done, total = work(config, test, evals[0], row["step"])
            left, said = summary["wall_seconds"] - passed, passed * (total - done) / done
            assert 2 / 3 < said / left < 4 / 3, f"after {passed:.0f} s it said {said:.0f}, and {left:.0f} were left"
