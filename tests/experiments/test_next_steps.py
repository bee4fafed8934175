"""The experiments on the paper's next steps: fair arms, paired rows, and stops that lose nothing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from r1lab.errors import InputError
from r1lab.task import Problem, load_problems, save_problems
from r1lab.training.loop import Learner
from r1lab.training.rl import grpo
from r1lab.run import Run
from tests.small_run import tiny_model
from r1lab.world.small_world import SmallWorld
from wordings import NAMES, USUAL
from wordings import wordings as other_wordings
from tests.experiments import next_steps
from tests.experiments.chain import levels_of
from tests.experiments.few_shot import FewShot, few_shot
from tests.experiments.measures import StoredRun
from tests.experiments.next_steps import (
    HELD_OUT,
    ROWS,
    TRAINED,
    OneLoss,
    Wordings,
    one_loss,
    row_of,
    varied,
    wordings,
)
from tests.experiments.registry import CLAIMS
from tests.experiments.settings import SFT

DEMONSTRATIONS = [
    {"prompt": f"make {a + b} from {a},{b}", "completion": "<think> ok </think>"}
    for a in range(2, 7)
    for b in range(2, 5)
]


@pytest.fixture
def base(tmp_path, alone):
    """A model's folder, and settings that take a second, in this process alone."""
    tiny_model(tmp_path / "base")
    Dataset.from_list(DEMONSTRATIONS).save_to_disk(tmp_path / "chain/dev3/data")
    save_problems(load_problems("data/test_signs.jsonl")[62:66], tmp_path / "test.jsonl")
    return tmp_path


def quick(base) -> dict:
    return {
        "rollouts": 2, "questions": 2, "group_size": 2, "minibatches": 1, "caps": [[0, 8]],
        "eval_every": 9, "final_samples": 1, "test": str(base / "test.jsonl"),
        "mixture": {"signs/1": 1.0},
    }  # fmt: skip


def test_wordings_of_both_kinds_are_trained_on_and_held_out():
    assert USUAL in TRAINED and not set(TRAINED) & set(HELD_OUT)
    assert {*TRAINED, *HELD_OUT} == set(NAMES)
    for kind in (NAMES[1:5], NAMES[5:]):  # words around the question, and other words
        assert set(kind) & set(TRAINED) and set(kind) & set(HELD_OUT)


def test_one_loss_sees_what_the_arm_of_one_after_the_other_sees(base, monkeypatch, capsys):
    measured = []

    def invented(world, stop, run, model, samples, seed, task):
        measured.append(run.name)
        rng = np.random.default_rng(len(measured))
        rows = {row: rng.random(len(levels_of(row))) for row in ROWS}
        np.savez(run.folder / "values.npz", **rows)
        run.write("benchmarks.json", {})
        return True

    learners = {}

    def watched(model, task, rl, arm, runs, learner):
        learners[arm] = learner
        return grpo(model, task, rl, arm, runs=runs, learner=learner)

    monkeypatch.setattr(next_steps, "measure_work", invented)
    monkeypatch.setattr(next_steps, "grpo", watched)
    config = OneLoss(
        base=str(base / "base"), rl=quick(base), chain=str(base / "chain"), processes=1, seed=3,
        sft={**SFT, "tokens_per_step": 128},
    )  # fmt: skip
    kept = one_loss(config, base / "runs")
    settings = {
        arm: json.loads((base / "runs" / arm / "config.json").read_text())
        for arm in ("rl", "sft_then_rl", "one_loss", "sft_then_one_loss")
    }
    for arm, found in settings.items():
        both = "one_loss" in arm
        assert (found["rollouts"], found["seed"]) == (2, 3)
        assert (found["model"] == str(base / "base")) == (not arm.startswith("sft"))
        assert (learners[arm] is not Learner) == both
        if both:  # two updates read 2 epochs of 15 rows
            assert learners[arm].keywords["rows"] == 15 and learners[arm].keywords["weight"] == 1.0
    table = json.loads((base / "runs/summary.json").read_text())
    assert set(table) == set(ROWS) and set(table["signs"]) == {"sft", *settings}
    assert table["signs"]["sft_then_rl"]["difference"] == 0 != table["signs"]["rl"]["difference"]
    assert kept["one_loss/signs"].mean() != kept["rl/signs"].mean()
    assert (kept["levels/signs"] == levels_of("signs")).all()
    before = capsys.readouterr().out
    assert "helpfulness    one_loss" in before

    one_loss(config, base / "runs")  # all is there: nothing is done again
    assert len(measured) == 5 and capsys.readouterr().out == before
    with pytest.raises(InputError, match="other settings .samples."):  # nor with other settings
        one_loss(replace(config, samples=7), base / "runs")


def test_what_is_not_there_is_told_and_nothing_is_begun(base):
    with pytest.raises(InputError, match="none"):
        one_loss(OneLoss(base=str(base / "base"), chain=str(base / "none")), base / "runs")
    for config, experiment in (
        (Wordings(base=str(base / "none")), wordings), (FewShot(chain=str(base / "none")), few_shot),
    ):  # fmt: skip
        with pytest.raises(InputError, match="none"):
            experiment(config, base / "runs")
    assert not (base / "runs").exists()


def test_examples_before_the_question_are_measured_for_base_zero_and_r1(base, monkeypatch):
    ways = []

    def evaluated(sampler, tokenizer, problems, *, template, **options):
        ways.append(template)
        drawn = evaluate(sampler, tokenizer, problems, template=template, **options)
        drawn["correct"][:] = isinstance(template, str)  # asked as usual it is right
        return drawn

    evaluate = next_steps.evaluate
    monkeypatch.setattr(next_steps, "evaluate", evaluated)
    for arm in ("zero", "r1"):
        shutil.copytree(base / "base", base / "chain" / arm / "model")
        monkeypatch.setattr("tests.experiments.few_shot.model_folder", lambda place, _: Path(place) / "model")
    monkeypatch.setattr("tests.experiments.few_shot.MAX_TOKENS", 8)
    config = FewShot(
        base=str(base / "base"), chain=str(base / "chain"), problems=1, samples=1, processes=1
    )
    kept = few_shot(config, base / "runs")
    assert set(kept) == {"levels/signs"} | {
        f"{arm}{way}/signs" for arm in ("base", "zero", "r1") for way in ("", "_few-shot")
    }
    assert kept["r1/signs"].mean() == 1 and kept["r1_few-shot/signs"].mean() == 0
    assert len(ways) == 6 and ways.count("small") == 3
    for claim in (claim for claim in CLAIMS if claim.jobs == ["few-shot"]):
        effect = claim.measure({"few-shot": StoredRun({}, kept)})
        assert effect.values.mean() == -1
    assert few_shot(config, base / "runs").keys() == kept.keys() and len(ways) == 6


def test_what_is_lost_is_the_usual_way_s_lead_over_those_never_trained_on():
    rng = np.random.default_rng(0)
    found = {name: rng.random(5) for name in NAMES}
    others = sum(found[name] for name in HELD_OUT) / len(HELD_OUT)
    assert np.allclose(row_of("held out", found), others)
    assert np.allclose(row_of("lost", found), found[USUAL] - others)
    assert (row_of("please", found) == found["please"]).all()


def test_what_held_out_wordings_cost_is_measured_problem_by_problem(base, capsys):
    config = Wordings(
        base=str(base / "base"), rl=quick(base), processes=1, samples=2, problems=3
    )
    kept = wordings(config, base / "runs")
    arms = {
        arm: Run(base / "runs" / arm).config["task"]["settings"].get("wordings")
        for arm in ("varied", "usual")
    }
    assert arms == {"varied": list(TRAINED), "usual": None}
    table = json.loads((base / "runs/summary.json").read_text())
    assert set(table) == {*NAMES, "held out", "lost"}
    assert table["lost"]["usual"]["difference"] == 0 and table["lost"]["usual"]["n"] >= 3
    lost = kept["usual/usual"] - kept["usual/held out"]
    assert np.allclose(kept["usual/lost"], lost) and len(kept["levels/lost"]) == len(lost)
    files = {file: file.stat().st_mtime for file in (base / "runs").glob("*.npz")}
    wordings(config, base / "runs")
    assert files == {file: file.stat().st_mtime for file in (base / "runs").glob("*.npz")}
    assert len(files) == 3
    with pytest.raises(InputError, match="other settings .problems."):
        wordings(replace(config, problems=4), base / "runs")


def asked_in(*names: str, rollout: int = 0, seed: int = 0) -> list[Problem]:
    """The problems of a rollout, in these wordings."""
    mixture = {"signs/3": 1.0, "sums/2": 1.0, "logic/2": 1.0}
    return varied(SmallWorld(mixture).task(), names).draw(seed, rollout, 40)


def test_training_asks_in_every_wording_that_is_named_and_in_no_other():
    names, used = (USUAL, "please", "new words"), set()
    for rollout in range(3):
        usual = asked_in(USUAL, rollout=rollout)
        for problem, before in zip(asked_in(*names, rollout=rollout), usual, strict=True):
            assert replace(problem, prompt=before.prompt) == before  # only the words differ
            if before.family == "logic":  # has no other wordings
                assert problem == before
                continue
            ways = {USUAL: before.prompt, **other_wordings(before)}
            [name] = [name for name, text in ways.items() if text == problem.prompt]
            used.add(name)
    assert used == set(names)


def test_the_wordings_of_a_rollout_depend_on_seed_and_rollout_alone():
    assert asked_in(*NAMES, rollout=4) == asked_in(*NAMES, rollout=4)
    assert asked_in(USUAL, rollout=4) == SmallWorld(
        {"signs/3": 1.0, "sums/2": 1.0, "logic/2": 1.0}
    ).task().draw(0, 4, 40)
    assert asked_in(*NAMES, rollout=0) != asked_in(*NAMES, rollout=1)
    assert asked_in(*NAMES, seed=0) != asked_in(*NAMES, seed=1)
