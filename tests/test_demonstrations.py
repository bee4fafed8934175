"""RL and SFT in one loss: the gradient is the sum of both, for any processes and after any stop."""

import json
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from test_training import (
    SMALL,
    TOKENIZER,
    FakeWorld,
    questions,
    ragged_experience,
    run,
    tiny_policy,
    weights,
)

from r1lab.cli import main
from r1lab.errors import InputError
from r1lab.files import read_rows
from r1lab.objective import LossConfig
from r1lab.world.tokenizer import UNKNOWN
from r1lab.task import load_problems, save_problems
from r1lab.training import checkpoint
from r1lab.training import run as grpo_run
from r1lab.training.batching import pad_rows
from r1lab.training.config import GRPOConfig
from r1lab.training.demonstrations import Demonstrations, load_documents
from r1lab.training.loop import Learner
from r1lab.training.ppo import Critic
from r1lab.training.supervised import document_loss

ROWS = [
    {"prompt": f"make {a + b} from {a},{b}", "completion": "<think> ok </think>" * (1 + a % 3)}
    for a in range(2, 9)
    for b in range(2, 5)
]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> GRPOConfig:
    folder = tmp_path_factory.mktemp("demonstrations")
    Dataset.from_list(ROWS).save_to_disk(folder)
    return replace(
        SMALL, demonstrations=str(folder), demonstration_weight=0.5, demonstration_rows=7,
        loss=LossConfig(beta=0.0), microbatch_tokens=64,
    )  # fmt: skip


def gradient(config: GRPOConfig, rank: int = 0, size: int = 1):
    """Of one update on completions that are the same for all settings, before it is clipped."""
    experience = ragged_experience(config)
    one = Learner(config, tiny_policy(), TOKENIZER, FakeWorld(rank, size))
    metrics = one.update(experience, {}, experience.minibatch_rows(0, config.minibatches))
    return torch.cat([g.flatten() for g in one.policy.kept]), metrics


def mean_loss(config: GRPOConfig, policy, step: int) -> torch.Tensor:
    """By its definition: all documents of the step in one batch, tokens of completions counted."""
    chosen = Demonstrations(config, policy.model, TOKENIZER).of_step(step)
    ids, mask = pad_rows(*zip(*chosen), TOKENIZER.pad_token_id)
    return document_loss(policy, ids, mask) / mask.sum()


def test_the_gradient_is_that_of_both_losses(config):
    policy = tiny_policy()
    loss = mean_loss(config, policy, step=0)
    loss.backward()
    taught = torch.cat([p.grad.flatten() for p in policy.parameters()])
    alone, metrics = gradient(replace(config, demonstrations="", demonstration_weight=0.0))
    both, with_loss = gradient(config)
    assert "demonstration_loss" not in metrics
    assert with_loss["demonstration_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert (both - (alone + 0.5 * taught)).abs().max() < 1e-6 < taught.abs().max()


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_processes_gives_the_same_gradient(config, size):
    alone, metrics = gradient(config)
    shares = [gradient(config, rank, size) for rank in range(size)]
    assert (alone - sum(share for share, _ in shares)).abs().max() < 1e-6
    parts = sum(part["demonstration_loss"] for _, part in shares)
    assert parts == pytest.approx(metrics["demonstration_loss"], rel=1e-5)


def test_packing_changes_no_gradient(config):
    apart, packed = gradient(config)[0], gradient(replace(config, pack=True))[0]
    assert (apart - packed).abs().max() < 1e-6


def test_documents_depend_on_seed_and_step_and_none_comes_twice_in_a_step(config):
    model = tiny_policy().model

    def drawn(seed: int, step: int) -> list:
        return Demonstrations(replace(config, seed=seed), model, TOKENIZER).of_step(step)

    assert drawn(0, 3) == drawn(0, 3)
    assert drawn(0, 3) != drawn(0, 4) and drawn(0, 3) != drawn(1, 3)
    assert len(set(map(str, drawn(0, 3)))) == 7
    all_of_them = Demonstrations(replace(config, demonstration_rows=1000), model, TOKENIZER)
    assert len(all_of_them.of_step(0)) == len(ROWS)


def test_demonstrations_are_learned_beside_a_reward_that_teaches_nothing(config):
    config = replace(config, rollouts=8, demonstration_rows=21, learning_rate=3e-3)
    policy = tiny_policy()
    before = mean_loss(config, policy, step=0).item()
    trained, _, updates = run(config, policy=policy)
    assert mean_loss(config, trained.policy, step=0).item() < before - 0.5
    assert updates[-1]["demonstration_loss"] < updates[0]["demonstration_loss"] - 0.5
    assert all(update["demonstration_loss"] > 0 for update in updates)


def test_without_demonstrations_nothing_changes(config):
    plain = replace(config, demonstrations="", demonstration_weight=0.0)
    other = replace(plain, demonstration_rows=3)
    assert torch.equal(weights(run(plain)[0].policy), weights(run(other)[0].policy))


@pytest.fixture
def whole(config, tmp_path) -> GRPOConfig:
    """A whole run's settings, with files of its own."""
    model = tmp_path / "model"
    tiny_policy().model.save_pretrained(model)
    TOKENIZER.save_pretrained(model)
    save_problems(load_problems("data/test_signs.jsonl")[62:64], tmp_path / "test.jsonl")
    return replace(
        questions(config).__self__, model=str(model), rollouts=3, arm="random",
        eval_file=str(tmp_path / "test.jsonl"), eval_every=9, final_samples=1, checkpoint_every=1,
    )  # fmt: skip


def test_flops_are_those_of_all_that_is_read_and_learned_from(whole, tmp_path):
    """6 a weight and token learned, 2 a weight and token read; a critic reads before it learns."""

    def flops(name: str, **changes) -> int:
        settings = replace(whole, rollouts=1, **changes)  # all draw the same answers
        grpo_run.prepare_folder(tmp_path / name, settings, resume=False, overwrite=False)
        assert grpo_run.grpo_worker(settings, tmp_path / name) == 0
        return json.loads((tmp_path / name / "summary.json").read_text())["flops"]

    policy = tiny_policy()
    alone = {"demonstrations": "", "demonstration_weight": 0.0}
    plain, weights = flops("plain", **alone), policy.model.num_parameters()
    tokens = plain // (8 * weights)
    assert plain == 8 * weights * tokens > 0
    documents = Demonstrations(whole, policy.model, TOKENIZER)
    read = sum(len(p) + len(c) for step in range(whole.minibatches) for p, c in documents.of_step(step))
    assert flops("taught") == plain + 6 * weights * read
    critic = sum(part.numel() for part in Critic(policy.model).parameters())
    assert flops("judged", advantage="gae", **alone) == plain + 8 * critic * tokens
    assert flops("lagging", lag=1, **alone) == plain + 2 * weights * tokens


def test_a_stopped_run_resumes_to_the_same_weights(whole, tmp_path):
    config = whole
    for name, stops in (("whole", ()), ("stopped", (1, 1))):
        grpo_run.prepare_folder(tmp_path / name, config, resume=False, overwrite=False)
        for rollouts in stops:
            grpo_run.grpo_worker(config, tmp_path / name, rollouts)
        assert grpo_run.grpo_worker(config, tmp_path / name) == 0
    states = [
        load_file(checkpoint.checkpoint_path(tmp_path / name, config.steps) / "model.safetensors")
        for name in ("whole", "stopped")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    losses = [
        [row["demonstration_loss"] for row in read_rows(tmp_path / name / "metrics.jsonl")
         if row["kind"] == "train"]
        for name in ("whole", "stopped")
    ]  # fmt: skip
    assert losses[0] == losses[1] and len(losses[0]) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"demonstration_weight": 0.0}, "give it a weight above 0, or leave out both"),
        ({"demonstrations": ""}, "name a data set and give it a weight"),
        ({"demonstration_weight": -1.0}, "weight above 0"),
        ({"demonstration_rows": 0}, "demonstration_rows is 0; give at least 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(config, change, words):
    config.check(processes=1)
    with pytest.raises(InputError, match=words):
        replace(config, **change).check(processes=1)


def test_data_that_do_not_fit_are_refused_before_the_run_begins(config, tmp_path, capsys):
    def refusal(folder) -> str:
        with pytest.raises(InputError) as refused:
            Demonstrations(replace(config, demonstrations=str(folder)), tiny_policy().model, TOKENIZER)
        return str(refused.value)

    Dataset.from_dict({"prompt": [], "completion": []}).save_to_disk(tmp_path / "empty")
    Dataset.from_list([{"prompt": "Zürich?", "completion": "ok"}]).save_to_disk(tmp_path / "foreign")
    assert "no data set can be read there" in refusal(tmp_path / "missing")
    assert "holds no rows" in refusal(tmp_path / "empty")
    assert "tokenizer does not know" in refusal(tmp_path / "foreign")
    written = {"prompt": "make 5 from 8,3", "completion": f"{UNKNOWN} 8-3"}  # by the model itself
    Dataset.from_list([written]).save_to_disk(tmp_path / "written")
    assert TOKENIZER.unk_token_id in load_documents(tmp_path / "written", TOKENIZER, "small")[0][1]
    options = ["--demonstrations", str(tmp_path / "missing"), "--demonstration-weight", "0.5"]
    assert main(["zero", *options, "--processes", "1", "--name", "../refused"]) == 2
    assert "no data set can be read there" in capsys.readouterr().err
