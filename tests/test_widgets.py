"""The dashboard without a browser: what a moved slider or a pressed button shows."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from r1lab.errors import InputError
from r1lab.lab import lesson
from dashboard import TokenScores, score_tokens, show_run, tokens_html, train_live
from r1lab.models.policy import load_policy
from r1lab.run import Run
from r1lab.training.config import GRPOConfig
from r1lab.training.rl import grpo
from r1lab.world.small_world import SmallWorld

ROOT = Path(__file__).resolve().parents[1]

# The inspector


@pytest.fixture(scope="module")
def models():
    policy, tokenizer = load_policy(ROOT / "data" / "tiny")
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.05)
    return policy, other, tokenizer


PROMPT = "User: make 13 from 9,5,1 Assistant:"
COMPLETION = "<think> 9+5=14-1=13:13 ok 对 </think> <answer> 9+5-1 </answer>"


@pytest.mark.parametrize("ended", [True, False])
def test_the_numbers_of_tokens_are_those_of_the_models_themselves(models, ended):
    policy, other, tokenizer = models
    scores = score_tokens(policy, other, tokenizer, PROMPT, COMPLETION, ended=ended)
    start = tokenizer(PROMPT).input_ids
    own = tokenizer(COMPLETION).input_ids + [tokenizer.eos_token_id] * ended
    with torch.no_grad():
        here, there = (
            one.model(torch.tensor([start + own])).logits[0].log_softmax(-1)[len(start) - 1 : -1]
            for one in (policy, other)
        )
    logps, ref_logps = (x[range(len(own)), own] for x in (here, there))
    assert len(scores.tokens) == len(own) and scores.tokens[0] == "<think>"
    ratio = logps - ref_logps
    expected = {
        "log-prob": logps, "of reference": ref_logps, "log ratio": ratio,
        "entropy": -(here.exp() * here).sum(-1), "KL": (-ratio).exp() + ratio - 1,
    }  # fmt: skip
    assert list(expected) == list(scores.measures)
    for name, values in expected.items():
        assert scores.measures[name] == pytest.approx(values.tolist(), abs=2e-5), name


def test_no_token_is_no_picture(models):
    policy, other, tokenizer = models
    with pytest.raises(InputError, match="empty"):
        score_tokens(policy, other, tokenizer, PROMPT, "", ended=False)


def test_text_of_a_model_stays_text():
    shown = tokens_html(TokenScores(["<script>"], {"log ratio": [0.0]}))
    assert "<script>" not in shown and shown.count("&lt;script&gt;") == 2


def test_stored_answers_can_be_walked_through_token_by_token():
    tiny = ROOT / "data" / "tiny"
    view = show_run(ROOT / "data" / "runs" / "zero", tiny, tiny)
    best = view.text.value
    assert best.count("<span title=") == best.count("</tr>") - 1 > 0
    newest = view.answer.value
    view.answer.value = newest - 1
    assert view.text.value != best
    view.answer.value = 1
    assert view.run.samples[0]["prompt"] in view.text.value
    view.answer.value = newest
    assert view.text.value == best


# The dashboard

TINY = str(ROOT / "data" / "tiny")


def settings(**changes):
    return GRPOConfig(
        questions=2, group_size=4, minibatches=1, caps=((0, 24),), checkpoint_every=1,
        eval_samples=1, final_samples=1, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def task():
    test = str(ROOT / "data" / "test_signs.jsonl")
    whole = SmallWorld({"signs/1": 1.0}, {"en": 1.0}, test=test).task()
    return dataclasses.replace(whole, test=whole.test[:4])


def started(live):
    """The live view, once its training has ended."""
    live.start.click()
    return ended(live)


def ended(live):
    live.thread.join(300.0)
    assert not live.thread.is_alive()
    return live


def test_a_live_run_is_shown_again_from_its_folder(task, tmp_path):
    live = train_live(TINY, task, settings(rollouts=3), tmp_path / "run")
    assert live.stop.disabled and "Press Start" in live.status.value
    assert "All rollouts are done. Step 3: " in started(live).status.value
    assert live.stop.disabled and not live.start.disabled
    after = show_run(tmp_path / "run")
    assert after.curves.value == live.curves.value
    assert 'src="data:image/png;base64,iVBORw0KGgo' in after.curves.value


def test_stop_saves_the_rollout_in_hand_and_start_goes_on_to_the_same_weights(task, tmp_path):
    started(train_live(TINY, task, settings(rollouts=3), tmp_path / "whole"))
    live = train_live(TINY, task, settings(rollouts=3), tmp_path / "stopped")
    live.start.click()
    live.stop.click()  # heard at the end of the first rollout
    assert "Stopped. Step 1" in ended(live).status.value
    assert "All rollouts are done. Step 3" in started(live).status.value
    ends = [tmp_path / name / "checkpoints" / "step-000003" for name in ("whole", "stopped")]
    one, two = ((end / "model.safetensors").read_bytes() for end in ends)
    assert one == two
    trained = [row for row in Run(tmp_path / "stopped").metrics if row["kind"] == "train"]
    assert [row["step"] for row in trained] == [1, 2, 3]


def test_the_dashboard_goes_on_with_a_run_that_grpo_began_and_the_other_way_round(task, tmp_path):
    config = settings(rollouts=2, processes=1)
    grpo(TINY, task, config, "stopped", runs=tmp_path, stop_after=1)
    live = started(train_live(TINY, task, config, tmp_path / "stopped"))
    assert "All rollouts are done. Step 2" in live.status.value
    assert grpo(TINY, task, config, "stopped", runs=tmp_path).finished


def test_a_run_that_breaks_off_says_why(task, tmp_path):
    live = train_live(str(tmp_path / "nowhere"), task, settings(rollouts=1), tmp_path / "run")
    assert "nowhere" in started(live).status.value and not live.start.disabled


ROW = '{"kind": "train", "step": 1, "reward": 0.5}\n'


@pytest.mark.parametrize(("files", "words"), [
    ({}, "not a run folder"), ({"metrics.jsonl": ""}, "no metrics yet"),
    ({"metrics.jsonl": "{}\n"}, "line 1"), ({"metrics.jsonl": "half\n\n"}, "cannot be read"),
    ({"metrics.jsonl": ROW, "config.json": "{"}, "damaged"),
    ({"metrics.jsonl": ROW, "samples.jsonl": "[]\n"}, "of type list"),
])  # fmt: skip
def test_a_broken_run_is_one_sentence(tmp_path, capsys, files, words):
    for name, text in ({"config.json": "{}"} | files).items():
        (tmp_path / name).write_text(text)
    assert show_run(tmp_path) is None
    printed = capsys.readouterr()
    assert words in printed.out and printed.out.count("\n") == 1 and not printed.err


def test_a_run_without_samples_or_models_is_one_sentence(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text(ROW)
    tiny = ROOT / "data" / "tiny"
    assert show_run(tmp_path, tiny, tiny).text.value == ""
    assert show_run(ROOT / "data" / "runs" / "zero", tmp_path / "none", tmp_path) is None
    assert "no model there" in capsys.readouterr().out


def test_refresh_follows_the_folder_and_says_when_it_is_gone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text(ROW)
    view = show_run(tmp_path)
    refresh = view.children[0].children[0]
    (tmp_path / "metrics.jsonl").write_text(ROW + ROW.replace("1,", "2,"))
    refresh.click()
    assert "Step 2" in view.status.value
    (tmp_path / "metrics.jsonl").unlink()
    refresh.click()
    assert "not a run folder" in view.status.value


def test_settings_that_cannot_train_and_other_runs_are_one_sentence(task, tmp_path, capsys):
    assert train_live(TINY, task, settings(rollouts=1), tmp_path / "a") is not None
    (tmp_path / "a/metrics.jsonl").touch()  # something has come of it
    assert train_live(TINY, task, settings(rollouts=2), tmp_path / "a") is None
    assert "other settings" in capsys.readouterr().out
    wrong = dataclasses.replace(settings(), group_size=1)
    assert train_live(TINY, task, wrong, tmp_path / "b") is None
    assert "group_size is 1" in capsys.readouterr().out and not (tmp_path / "b").exists()


# What a page of the browser is given


def test_groups_of_a_run_are_shown_and_a_run_without_any_is_one_sentence(tmp_path, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(lesson, "display", lambda data, raw: shown.append(data["text/html"]))
    lesson.rollouts(ROOT / "data" / "runs" / "zero", most=3)
    still, page = shown[0].split("<iframe")
    assert still.count("<details>") == 16 and page.count("rewards") > 3
    assert "A still picture" in still and "&lt;script&gt;" in page  # a page within the page
    with pytest.raises(InputError, match="holds no group of answers"):
        lesson.rollouts(tmp_path)


def test_a_model_answers_a_question_of_ones_own():
    question, answer = lesson.ask(TINY, max_tokens=12).children
    question.value = "make 13 from 9,5,1"
    assert '<div class="answer">' in answer.value
