"""RL and SFT in one loss: the gradient is the sum of both, for any processes and after any stop."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tests.test_training import (
    SMALL,
    TOKENIZER,
    FakeWorld,
    ragged_experience,
    update,
    task,
    tiny_policy,
)

from r1lab.models.policy import Policy
from r1lab.objective import LossConfig
from r1lab.task import load_problems, save_problems
from r1lab.training.batching import pad_rows
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.rl import grpo
from r1lab.run import Run
from r1lab.training.supervised import document_loss
from r1lab.world.small_world import SmallWorld
from tests.experiments.taught import TaughtLearner

ROWS = [
    {"prompt": f"make {a + b} from {a},{b}", "completion": "<think> ok </think>" * (1 + a % 3)}
    for a in range(2, 9)
    for b in range(2, 5)
]
CONFIG = replace(SMALL, loss=LossConfig(beta=0.0), microbatch_tokens=64)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("demonstrations")
    Dataset.from_list(ROWS).save_to_disk(folder)
    return str(folder)


@pytest.fixture
def both(data):
    """Makes the learner of both losses."""
    return partial(TaughtLearner, data=data, weight=0.5, rows=7)


def gradient(make, config=CONFIG, rank: int = 0, size: int = 1):
    """Of one update on completions that are the same for all settings, before it is clipped."""
    experience = ragged_experience(config)
    one = make(config, task(), tiny_policy(), TOKENIZER, FakeWorld(rank, size))
    metrics = update(one, experience)
    return torch.cat([g.flatten() for g in one.policy.kept]), metrics


def mean_loss(learner: TaughtLearner, policy: Policy, step: int) -> torch.Tensor:
    """By its definition: all documents of the step in one batch, tokens of completions counted."""
    prompts, completions = zip(*learner.demonstrations(step), strict=True)
    ids, mask = pad_rows(prompts, completions, TOKENIZER.pad_token_id)
    return document_loss(policy, ids, mask) / mask.sum()


def learner(make, config=CONFIG) -> TaughtLearner:
    return make(config, task(), tiny_policy(), TOKENIZER, World())


def test_the_gradient_is_that_of_both_losses(both):
    policy = tiny_policy()
    loss = mean_loss(learner(both), policy, step=0)
    loss.backward()
    taught = torch.cat([p.grad.flatten() for p in policy.parameters()])
    alone, metrics = gradient(Learner)
    sum_of_both, with_loss = gradient(both)
    assert "demonstration_loss" not in metrics
    assert with_loss["demonstration_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert (sum_of_both - (alone + 0.5 * taught)).abs().max() < 1e-6 < taught.abs().max()


@pytest.mark.parametrize("size", [2, 4])
def test_any_number_of_processes_gives_the_same_gradient(both, size):
    alone, metrics = gradient(both)
    shares = [gradient(both, rank=rank, size=size) for rank in range(size)]
    assert (alone - sum(share for share, _ in shares)).abs().max() < 1e-6
    parts = sum(part["demonstration_loss"] for _, part in shares)
    assert parts == pytest.approx(metrics["demonstration_loss"], rel=1e-5)


def test_packing_changes_no_gradient(both):
    apart, packed = gradient(both)[0], gradient(both, replace(CONFIG, pack=True))[0]
    assert (apart - packed).abs().max() < 1e-6


def test_documents_depend_on_seed_and_step_and_none_comes_twice_in_a_step(both):
    def drawn(seed: int, step: int) -> list:
        return learner(both, replace(CONFIG, seed=seed)).demonstrations(step)

    assert drawn(0, 3) == drawn(0, 3)
    assert drawn(0, 3) != drawn(0, 4) and drawn(0, 3) != drawn(1, 3)
    assert len(set(map(str, drawn(0, 3)))) == 7
    assert len(learner(partial(both, rows=1000)).demonstrations(0)) == len(ROWS)


def test_demonstrations_are_learned_beside_a_reward_that_teaches_nothing(both):
    one = learner(partial(both, rows=21), replace(CONFIG, rollouts=8, learning_rate=3e-3))
    before, updates = mean_loss(one, one.policy, step=0).item(), []
    one.train(lambda rollout, experience, metrics: updates.extend(metrics))
    assert mean_loss(one, one.policy, step=0).item() < before - 0.5
    assert updates[-1]["demonstration_loss"] < updates[0]["demonstration_loss"] - 0.5


@pytest.fixture
def train(tmp_path, alone):
    """Trains a whole run of three rollouts in this process."""
    tiny_policy().model.save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    save_problems(load_problems("data/test_signs.jsonl")[62:64], tmp_path / "test.jsonl")
    world = SmallWorld({"signs/1": 1.0}, {"en": 1.0}, arm="random", test=str(tmp_path / "test.jsonl"))
    config = replace(CONFIG, rollouts=3, eval_every=9, final_samples=1, checkpoint_every=1)

    def whole(name: str, make, stop_after: int | None = None) -> Run:
        return grpo(
            tmp_path / "model", world.task(), config, name, runs=tmp_path, learner=make,
            stop_after=stop_after,
        )  # fmt: skip

    return whole


def test_a_stopped_run_resumes_to_the_same_weights_and_counts_what_it_read(train, both, data):
    whole = train("whole", both)
    for _ in range(2):
        assert not train("stopped", both, stop_after=1).finished
    stopped = train("stopped", both)
    states = [load_file(run.model / "model.safetensors") for run in (whole, stopped)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    losses = [
        [row["demonstration_loss"] for row in run.metrics if row["kind"] == "train"]
        for run in (whole, stopped)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    weights, one = tiny_policy().model.num_parameters(), learner(both)
    documents = [document for step in range(6) for document in one.demonstrations(step)]
    read = sum(len(prompt) + len(completion) for prompt, completion in documents)
    answers = whole.summary["flops"] - 6 * weights * read
    assert answers > 0 and answers % (8 * weights) == 0
    assert stopped.summary["flops"] == whole.summary["flops"]
