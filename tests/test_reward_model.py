"""Reward models: their losses, what they read, how well they judge, and what they refuse."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1lab.errors import InputError
from r1lab.models.reward_model import load_reward_model, new_reward_model
from r1lab.rewards.preference import helpfulness, safety
from r1lab.run import Run
from r1lab.task import Problem
from r1lab.stages import preferences
from r1lab.stages.preferences import (
    PreferenceConfig, preference_pairs, safety_labels, train_reward_model, train_reward_models,
)  # fmt: skip
from r1lab.stages.preferences import bradley_terry, label_loss

SMALL = PreferenceConfig(samples=12, examples=400, label_noise=0.0)
CHAT = Problem("c", "chat", 1, "en", "greet Ben", "", meta={"name": "Ben", "topic": "cat"})
UNSAFE = Problem("u", "unsafe", 1, "en", "how to make a bomb", "", meta={"topic": "bomb"})
PROMPT, HARMFUL = "User: greet Ben Assistant:", "User: how to make a bomb Assistant:"
REFUSAL = "sorry, I cannot help, bomb is unsafe."
HELP = "first take bomb, then mix it."


def completion(answer: str, thinking: str = "") -> str:
    return f"<think> {thinking} </think> <answer> {answer} </answer>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both models, trained on clean labels in a few seconds, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "0")
        patch.setenv("WORLD_SIZE", "1")
        yield train_reward_models(SMALL, tmp_path_factory.mktemp("runs") / "reward_models")


def summary(folder) -> dict:
    return json.loads((folder / "summary.json").read_text())


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=6))
def test_the_pairwise_loss_and_its_gradient_are_the_formulas(scores):
    chosen, rejected = torch.tensor(scores, dtype=torch.float64).T
    chosen = chosen.clone().requires_grad_()
    loss = bradley_terry(chosen, rejected)
    loss.backward()
    expected = [math.log1p(math.exp(b - a)) for a, b in scores]
    slopes = [-1 / (1 + math.exp(a - b)) / len(scores) for a, b in scores]
    assert loss.item() == pytest.approx(sum(expected) / len(scores))
    assert chosen.grad.tolist() == pytest.approx(slopes)


def test_the_pointwise_loss_is_logistic():
    model = new_reward_model("data/tiny")
    labels = [(HARMFUL, completion(REFUSAL), True), (HARMFUL, completion(HELP), False)]
    with torch.no_grad():
        yes, no = model([HARMFUL] * 2, [text for _, text, _ in labels]).tolist()
        expected = (math.log1p(math.exp(-yes)) + math.log1p(math.exp(no))) / 2
        assert label_loss(model, labels).item() == pytest.approx(expected, rel=1e-5)


def test_the_score_is_that_of_hugging_faces_classifier():
    model = new_reward_model("data/tiny")
    ids = model.tokenizer(PROMPT + " hello Ben.").input_ids + [model.tokenizer.eos_token_id]
    expected = model.model(torch.tensor([ids])).logits.squeeze()
    assert model([PROMPT], ["hello Ben."]).item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_score_does_not_depend_on_the_rows_beside_it():
    model = new_reward_model("data/tiny")
    replies = ["hello Ben.", "hey Ben, thank you and really very and really very good."]
    together = model([PROMPT] * 2, replies)
    alone = torch.cat([model([PROMPT], [reply]) for reply in replies])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("kind", ["helpfulness", "safety"])
def test_the_models_judge_prompts_that_they_never_saw(folder, kind):
    result = summary(folder / kind)
    assert result["held_out_accuracy"] > 0.8
    if kind == "safety":  # more than calling everything unsafe would give
        assert result["held_out_accuracy"] > 1 - result["safe_share"] + 0.05


def test_only_the_summary_counts_for_helpfulness(folder):
    reward = helpfulness(folder / "helpfulness")
    texts = [
        completion("hello dear Ben, I like you."),
        completion("hello dear Ben, I like you.", "whatever whatever 9+5=14"),
        completion("whatever, good bye and really very."),
    ]
    good, thoughtful, bad = reward(prompts=[PROMPT] * 3, completions=texts, family=["chat"] * 3)
    assert good == thoughtful
    assert 0 <= bad < 0.5 < good <= 1


def test_the_whole_completion_counts_for_safety(folder):
    reward = safety(folder / "safety")
    texts = [completion(REFUSAL), completion(HELP), completion(REFUSAL, HELP)]
    refused, complied, planned = reward(prompts=[HARMFUL] * 3, completions=texts, family=["unsafe"] * 3)
    assert refused > 0.5 > max(complied, planned)


def test_each_reward_scores_its_own_family_and_nothing_else(folder):
    rows = dict(
        prompts=[PROMPT, HARMFUL, "User: make 4 from 3,1 Assistant:"],
        completions=[completion("hello Ben."), completion(REFUSAL), completion("3+1")],
        family=["chat", "unsafe", "signs"], meta=[CHAT.meta, UNSAFE.meta, {}],
    )  # fmt: skip
    kind = [score is None for score in helpfulness(folder / "helpfulness")(**rows)]
    assert kind == [False, True, True]
    assert [score is None for score in safety(folder / "safety")(**rows)] == [True, False, True]


def test_a_reply_without_a_summary_earns_nothing(folder):
    reward = helpfulness(folder / "helpfulness")
    assert reward(prompts=[PROMPT], completions=["hello dear Ben."], family=["chat"]) == [0.0]


def test_a_stored_model_scores_as_it_did(tmp_path):
    model = new_reward_model("data/tiny")
    model.save(tmp_path, average=0.25)
    loaded = load_reward_model(tmp_path)
    assert loaded.model.config.average_score == 0.25
    replies = ["hello Ben.", "hey."]
    assert torch.equal(loaded([PROMPT] * 2, replies), model([PROMPT] * 2, replies))
    assert loaded.judge([PROMPT] * 2, replies) == model.judge([PROMPT] * 2, replies)


def test_finished_models_are_not_trained_again_nor_overwritten_by_others(folder, monkeypatch):
    monkeypatch.setattr(preferences, "written", lambda *_: pytest.fail("trained again"))
    assert train_reward_models(SMALL, folder) == folder
    (folder / "summary.json").unlink()  # stopped just before the end
    assert train_reward_models(SMALL, folder) == folder
    assert Run(folder).summary["safety"] == summary(folder / "safety")
    with pytest.raises(InputError, match="reward_models.* was started with other settings .seed"):
        train_reward_models(replace(SMALL, seed=1), folder)


REPLIES = ("hello dear Ben, I like you.", "hey Ben, I like you.", "whatever, thank you good.",
           "hey, good bye.", "hello Ben.", "so, good bye and really very good.")  # fmt: skip


def test_pairs_differ_enough_and_length_tells_nothing():
    rows = [(PROMPT, CHAT.meta, [completion(reply) for reply in REPLIES] + ["no summary"])]
    clean = replace(SMALL, margin=0.2, label_noise=0.0)
    pairs = preference_pairs(clean, rows)
    assert pairs and all(
        preferences.hidden_preference(prompt, better, CHAT.meta)
        >= preferences.hidden_preference(prompt, worse, CHAT.meta) + 0.2
        for prompt, better, worse in pairs
    )
    assert sum(len(better.split()) - len(worse.split()) for _, better, worse in pairs) == 0
    turned = preference_pairs(replace(clean, label_noise=1.0), rows)
    assert sorted(turned) == sorted((prompt, worse, better) for prompt, better, worse in pairs)


def test_nothing_to_learn_from_is_said():
    with pytest.raises(InputError, match="no two replies"):
        preference_pairs(SMALL, [(PROMPT, CHAT.meta, [completion("hello Ben.")] * 4)])
    with pytest.raises(InputError, match="all safe or all unsafe"):
        safety_labels(SMALL, [(HARMFUL, UNSAFE.meta, [completion(REFUSAL)] * 4)])


def test_weights_that_are_not_numbers_are_not_stored(tmp_path, monkeypatch):
    def broken(backbone):
        model = new_reward_model("data/tiny")
        model.model.score.weight.data.fill_(math.nan)
        return model

    monkeypatch.setattr(preferences, "new_reward_model", broken)
    rows = [(PROMPT, CHAT.meta, [completion(reply) for reply in REPLIES])]
    monkeypatch.setattr(preferences, "written", lambda *_: (rows, rows))
    with pytest.raises(InputError, match="not numbers after its last step; lower its learning rate"):
        train_reward_model("helpfulness", SMALL, tmp_path / "helpfulness")
    assert not list(tmp_path.iterdir())


def test_a_damaged_model_is_refused(tmp_path):
    model = new_reward_model("data/tiny")
    model.model.score.weight.data.fill_(math.nan)
    model.save(tmp_path / "helpfulness", average=0.0)
    with pytest.raises(InputError, match="not numbers; delete that folder"):
        helpfulness(tmp_path / "helpfulness")
    (tmp_path / "helpfulness" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_reward_model(tmp_path / "helpfulness")
    with pytest.raises(InputError, match="no model there"):
        safety(tmp_path / "safety")
