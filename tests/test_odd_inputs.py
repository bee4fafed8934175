"""What experimenters bring: nothing of theirs is deleted, ignored or misread without a word."""

import functools
import json
import os
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pandas
import pytest
import torch

import r1lab
from r1lab import Problem, Task, cli
from r1lab.errors import InputError
from r1lab.evaluation.measure import evaluate
from r1lab.objective import policy_loss
from r1lab.report.figures import draw
from r1lab.rewards import RewardSet, accuracy, validate
from r1lab.run import Run
from r1lab.sampling import TorchSampler
from r1lab.sources import load_task
from r1lab.sources.rows import final_answer
from r1lab.models.policy import load_model
from r1lab.task import source_of
from r1lab.training.config import GRPOConfig
from r1lab.training.loop import Learner
from r1lab.training.rl import check_task, grpo
from r1lab.training.sft import SFTConfig, sft
from tests.small_run import coin_task, tiny_model

CONFIG = GRPOConfig.preset(
    "cpu", rollouts=2, questions=2, group_size=2, minibatches=1, caps=((0, 8),), processes=1,
    eval_problems=1, eval_samples=1, final_samples=1,
)  # fmt: skip
ROWS = [{"question": f"what is {n}+{n}?", "answer": 2 * n} for n in range(8)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return tiny_model(folder), coin_task(folder)


# What `overwrite` deletes


@pytest.mark.parametrize("name", ["", ".", "../mine"])
def test_overwriting_deletes_no_folder_that_is_not_a_run(small, tmp_path, name):
    runs, mine = tmp_path / "runs", tmp_path / "mine"
    (runs / "precious").mkdir(parents=True)
    mine.mkdir()
    (mine / "data.jsonl").touch()
    with pytest.raises(InputError, match="is no run, or holds other runs or the model .* not deleted; give --name"):
        grpo(*small, CONFIG, name, runs=runs, overwrite=True)
    assert (runs / "precious").exists() and (mine / "data.jsonl").exists()
    for folder in (runs / "precious", runs):  # the folder of all runs was taken for a run once
        (folder / "config.json").write_text("{}")
        (folder / "metrics.jsonl").touch()
    with pytest.raises(InputError, match="holds other runs"):
        grpo(*small, CONFIG, "", runs=runs, overwrite=True)
    assert (runs / "precious").exists()


def test_overwriting_does_not_delete_the_model_that_is_to_be_trained(small, tmp_path):
    first = grpo(*small, CONFIG, "first", runs=tmp_path)
    for start in (
        functools.partial(grpo, str(first.folder), small[1], CONFIG),
        functools.partial(sft, first.model, tmp_path / "rows.jsonl", SFTConfig(processes=1)),
    ):
        (tmp_path / "rows.jsonl").write_text('{"prompt": "1", "completion": "2"}\n')
        with pytest.raises(InputError, match="holds other runs or the model to start from"):
            start("first", runs=tmp_path, overwrite=True)
    assert first.finished and first.model.exists()


# What a resumed run learns by


def doubled(*tensors, **options):
    loss, metrics = policy_loss(*tensors, **options)
    return 2 * loss, metrics


class OwnLearner(Learner):
    """Learns as ever."""


@pytest.mark.parametrize("way", [{"loss": doubled}, {"learner": OwnLearner}], ids=["loss", "learner"])
def test_a_run_goes_on_with_its_own_loss_and_learner_or_not_at_all(small, tmp_path, way):
    model, task = small
    run = r1lab.grpo(model, task, CONFIG, "own", runs=tmp_path, stop_after=1, **way)
    with pytest.raises(InputError, match="started with other settings"):
        r1lab.Run(run.folder, task).resume()
    with pytest.raises(InputError, match="started with other settings"):
        grpo(model, task, CONFIG, "own", runs=tmp_path)
    assert r1lab.Run(run.folder, task, **way).resume().finished
    assert len(run.extend(1).metrics) > len(Run(tmp_path / "own").evals)


def test_a_run_of_fine_tuning_is_not_taken_for_one_of_rl(small, tmp_path, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "1", "completion": "2"}\n' * 3)
    config = SFTConfig(processes=1, steps=1)
    run = r1lab.sft(small[0], rows, config, "tuned", runs=tmp_path)
    with pytest.raises(InputError, match="no run of RL; the call that started it"):
        run.resume()
    run.folder.joinpath("summary.json").unlink()  # as if it had been stopped
    for other in ('{"prompt": "1", "completion": "2"}\n' * 9, '{"prompt": "1", "completion": "3"}\n' * 3):
        rows.write_text(other)
        with pytest.raises(InputError, match="other settings .rows."):
            sft(small[0], rows, config, "tuned", runs=tmp_path)


def test_a_run_goes_on_from_the_folder_that_it_is_in(small, tmp_path, monkeypatch):
    model, task = small
    grpo(model, task, CONFIG, "here", runs=tmp_path, stop_after=1)
    monkeypatch.chdir(tmp_path / "here")
    assert r1lab.Run(".", task).resume().finished


def scaled(completions, scale=1.0, **columns):
    return [scale for _ in completions]


def paying(price):
    def pays(completions, **columns):
        return [price for _ in completions]

    return pays


@dataclass
class Pays:
    price: float

    def __call__(self, completions, **columns):
        return [self.price for _ in completions]


class Counts:
    """Like a judge that counts its calls."""

    calls = 0

    def __call__(self, completions, **columns):
        self.calls += 1
        return [1.0 for _ in completions]


@pytest.mark.parametrize("make", [paying, Pays, lambda price: functools.partial(scaled, scale=price),
                                  lambda price: functools.partial(Pays(price), step=[0])])  # fmt: skip
def test_a_reward_is_known_by_its_source_and_what_it_holds(make):
    assert source_of(make(1.0)) == source_of(make(1.0)) != source_of(make(2.0))
    assert " at 0x" not in source_of(make(1.0))
    judge, other = Counts(), Counts()
    judge([])
    assert source_of(judge) == source_of(other), "what a call changes is no part of it"
    assert source_of(accuracy) == "r1lab.rewards.rules.accuracy" and source_of(len) == "builtins.len"


def test_an_edited_file_is_read_again(tmp_path):
    file = tmp_path / "mine.py"
    text = f"from r1lab import Task\ntask = Task.from_dataset({ROWS}, test=4, name='NAME')\n"
    for at, name in enumerate(("first", "second")):
        file.write_text(text.replace("NAME", name))
        os.utime(file, (at, at))
        assert load_task(f"{file}:task").name == name


# What a check says


@pytest.mark.parametrize("half", [0.5, np.float32(0.5), torch.tensor(0.5)], ids=str)
@pytest.mark.parametrize("k", [1, 2])
def test_a_fraction_of_any_type_counts_as_it_is(small, half, k):
    model, tokenizer = load_model(small[0])
    task = replace(small[1], check=lambda completion, problem: half)
    found = evaluate(TorchSampler(model, tokenizer), tokenizer, task, k=k, max_tokens=4)
    summary = found.summary()
    assert summary["pass_at_1"] == summary["pass_at_1_strict"] == 0.5
    assert {level["pass_at_1"] for level in summary["by_level"].values()} == {0.5}
    right = replace(task, check=lambda completion, problem: True)
    whole = evaluate(TorchSampler(model, tokenizer), tokenizer, right, k=k, max_tokens=4)
    assert whole["correct"].dtype == int and whole.summary()["pass_at_1"] == 1


# What columns and answers hold


@pytest.mark.parametrize(("text", "answer"), [
    ("so #### (3, 4)", "(3, 4)"), ("#### 1, 2", "1, 2"), ("#### 1,234", "1234"), ("#### -1,234,567.5", "-1234567.5"),
    ("#### 12,3", "12,3"), ("#### $1,000 and 20", "$1000 and 20"),
])  # fmt: skip
def test_commas_are_taken_out_of_large_numbers_alone(text, answer):
    assert final_answer(text) == answer


def wants_the_step(prompts, completions, step, rollout, seed, **columns):
    assert len(step) == len(rollout) == len(seed) == len(completions)
    return [float(bool(completion)) for completion in completions]


def test_columns_may_have_the_trainer_s_names(small, tmp_path):
    model, task = small
    rows = [replace(one, meta={**one.meta, "seed": 5, "step": 1, "completion_ids": 2}) for one in task.draw(0, 0, 8)]
    paid = replace(task, problems=rows, rewards={**task.rewards, "mine": (wants_the_step, 0.0)})
    assert grpo(model, paid, CONFIG, "named", runs=tmp_path).finished
    validate(RewardSet({"mine": wants_the_step}), [Problem("1", "own", 1, "en", "1+1", "2")])
    assert r1lab.sample(model, paid, n=2, max_tokens=4).rewards["mine"]
    with_self = Task.from_dataset([{**row, "self": 1} for row in ROWS], test=4)
    assert "self" not in with_self.test[0].meta


def test_a_data_frame_is_rows():
    task = Task.from_dataset(pandas.DataFrame(ROWS), test=4)
    assert task.fingerprint() == Task.from_dataset(ROWS, test=4).fingerprint()


def test_a_first_row_without_the_question_is_named():
    with pytest.raises(InputError, match="row 1: cannot be read"):
        Task.from_dataset([{"answer": 1}, *ROWS], test=4)


def test_an_empty_cell_is_no_answer():
    rows = [{**ROWS[0], "answer": float("nan")}, *ROWS[1:]]
    assert {p.solution for p in Task.from_dataset(rows, test=4).problems} <= {"", *(str(2 * n) for n in range(8))}
    assert "NaN" not in repr(Task.from_dataset(rows, test=4).test)


def test_a_date_is_stored_with_the_samples(small, tmp_path):
    model, task = small
    rows = [replace(one, meta={**one.meta, "day": date(2026, 1, 2)}) for one in task.draw(0, 0, 8)]
    run = grpo(model, replace(task, problems=rows), CONFIG, "dated", runs=tmp_path)
    assert "2026-01-02" in (run.folder / "samples.jsonl").read_text()


# What settings cannot be


@pytest.mark.parametrize("name", ["eval_every", "checkpoint_every", "reference_every", "final_samples", "eval_samples"])
def test_what_is_counted_by_is_at_least_1(name):
    with pytest.raises(InputError, match=f"{name} is 0; give at least 1"):
        replace(CONFIG, **{name: 0}).check(1)


@pytest.mark.parametrize("name", ["epochs", "checkpoint_every"])
def test_so_it_is_in_fine_tuning(small, tmp_path, name):
    with pytest.raises(InputError, match=f"{name} is 0; give at least 1"):
        sft(small[0], tmp_path / "nothing.jsonl", SFTConfig(**{name: 0}), runs=tmp_path)


def test_a_cap_without_its_step_is_told_what_it_needs():
    config = replace(CONFIG)
    object.__setattr__(config, "caps", (0, 512))  # what ((0, 512)) is
    with pytest.raises(InputError, match="caps must begin at step 0, for example"):
        config.check(1)


@pytest.mark.parametrize("rewards", [{}, [scaled], scaled])
def test_rewards_have_names(small, rewards):
    model, task = small
    task = replace(task)
    object.__setattr__(task, "rewards", rewards)  # past the tests' own check of types
    with pytest.raises(InputError, match="pays for nothing: give rewards by name"):
        check_task(task, CONFIG, model)


def test_a_task_without_test_problems_is_not_evaluated(small):
    model, task = small
    with pytest.raises(InputError, match="at least one problem"):
        r1lab.evaluate(model, replace(task, test=[]), processes=1)


# What a report shows


def test_a_figure_has_room_for_many_levels_and_rewards():
    levels = {str(level): {"n": 4, "pass_at_1": 0.1, "ci95": [0.0, 0.2]} for level in range(1, 13)}
    parts = {f"reward/part {number}": 0.1 for number in range(12)}
    rows = [
        row for step in (1, 2)
        for row in (
            {"kind": "eval", "step": step, "pass_at_1": 0.1, "by_level": levels},
            {"kind": "train", "step": step, "reward": 0.1, **parts},
        )
    ]  # fmt: skip
    assert len(draw("accuracy_by_level", rows).axes[0].lines) >= 12
    assert len(draw("reward_parts", rows).axes[0].lines) >= 12


# `r1lab eval --task`


def test_a_task_of_one_s_own_is_evaluated_from_the_shell(tmp_path, monkeypatch, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "from r1lab import Task\n"
        "def check(completion, problem):\n    return 0.25\n"
        f"task = Task.from_dataset({[dict(row, question=f'{n} + {n}') for n, row in enumerate(ROWS)]}, test=4,"
        " template='small', check=check)\n"
    )
    asked = ["--task", f"{file}:task", "--samples", "1", "--max-tokens", "4", "--save", str(tmp_path / "eval.json")]
    assert cli.main(["eval", "data/tiny", *asked]) == 0
    saved = json.loads((tmp_path / "eval.json").read_text())
    assert saved["pass_at_1"] == 0.25 and saved["by_level"]["1"]["n"] == 4
    assert cli.main(["eval", "data/tiny", *asked, "--problems", "2"]) == 0
    assert json.loads((tmp_path / "eval.json").read_text())["by_level"]["1"]["n"] == 2
    assert cli.main(["eval", "data/tiny", "--task", "nothing.py:task"]) == 2
    assert "no such file" in capsys.readouterr().err
