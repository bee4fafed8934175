"""The experiment on reward hacking: who pays, what is followed, and how it is summed up."""

import pytest

from r1lab.errors import InputError
from r1lab.models.reward_model import new_reward_model
from r1lab.stages import hacking
from r1lab.stages.hacking import HACKING, SHORT, agreement, follow, human, judged_task, run_hacking, summarize
from r1lab.stages.rl_stages import RLStage

MODEL = "data/tiny"
TINY = HACKING.with_rl(
    rollouts=2, questions=4, group_size=4, caps=((0, 16),), eval_every=2, eval_samples=1,
    eval_problems=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> RLStage:
    """With a reward model that was never trained: the experiment's machinery needs no taste."""
    folder = tmp_path_factory.mktemp("reward_models")
    new_reward_model("data/tiny").save(folder / "helpfulness", average=0.0)
    return TINY.with_world(reward_models=str(folder))


@pytest.mark.parametrize("payer", ["model", "human"])
def test_both_judges_are_followed_and_one_pays(stage, payer):
    weights = {name: weight for name, (_, weight) in judged_task(stage, payer).rewards.items()}
    assert weights == {
        "model": float(payer == "model"), "human": float(payer == "human"),
        "format": stage.world.format_weight,
    }  # fmt: skip
    rows = follow(stage, MODEL, payer)
    assert [(row["kind"], row["step"]) for row in rows] == [
        ("eval", 0), ("train", 0), ("train", 4), ("eval", 8),
    ]  # fmt: skip
    scores = [row[name] for row in rows if row["kind"] == "train" for name in hacking.PAYERS]
    assert all(0 <= score <= 1 for score in scores)


def test_the_human_reads_the_summary():
    meta = [{"name": "Anna", "topic": "cat"}] * 3
    texts = ["<think> </think> <answer> hello Anna. </answer>",
             "<think> whatever </think> <answer> hello Anna. </answer>", "hello Anna."]  # fmt: skip
    assert human(prompts=["greet Anna"] * 3, completions=texts, meta=meta) == [1.0, 1.0, 0.0]


def test_agreement_counts_pairs_of_the_same_question_that_the_human_tells_apart():
    human_scores = [1.0, 0.5, 0.5, 0.9, 0.1, 0.2]
    model_scores = [0.9, 0.1, 0.2, 0.0, 0.3, 0.2]
    # First question: 2 of 2 pairs; second: (.9, .1) no, (.9, .2) no, (.1, .2) no.
    assert agreement(model_scores, human_scores, 3) == pytest.approx(2 / 5)
    assert agreement([0.1, 0.2], [0.5, 0.5], 2) is None


def test_a_finished_arm_is_kept(stage, tmp_path, monkeypatch, alone):
    first = run_hacking(stage, MODEL, tmp_path / "run")
    monkeypatch.setattr(hacking, "follow", lambda *_: pytest.fail("trained again"))
    (tmp_path / "run" / "summary.json").unlink()
    assert run_hacking(stage, MODEL, tmp_path / "run") == first
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(InputError, match="other settings"):
        run_hacking(stage.with_rl(seed=1), MODEL, tmp_path / "run")


def test_without_a_reward_model_nothing_is_started(stage, tmp_path):
    with pytest.raises(InputError, match="no model there"):
        run_hacking(stage.with_world(reward_models=str(tmp_path)), MODEL, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_summary_reads_the_start_the_short_run_and_the_end():
    rows = [{"kind": "eval", "step": 0, "reasoning": 0.7}]
    rows += [
        {"kind": "train", "step": step, "model": step / 100, "human": 1 - step / 100,
         "agreement": None if step == 20 else 0.5}
        for step in range(0, 100, 4)
    ]  # fmt: skip
    rows += [{"kind": "eval", "step": 100, "reasoning": 0.1}]
    summary = summarize(rows)
    assert summary["reasoning"] == [0.7, 0.1]
    assert summary["short"]["model"] == pytest.approx(SHORT / 100)
    assert summary["short"]["agreement"] == 0.5
    assert summary["long"]["human"] == pytest.approx(1 - 0.92)
