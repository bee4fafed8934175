"""A stale experiment is begun anew, stage by stage; where all goes as it did, it takes the new key."""

import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from r1lab.claims import replay, runner
from r1lab.claims.experiments import load_run, save_run, write_run
from r1lab.claims.replay import keep_search, replay_stale, restored, stage_alike
from r1lab.claims.runner import Laboratory
from r1lab.models.reward_model import new_reward_model
from r1lab.search.compare import CompareConfig, settings_of
from r1lab.stages.cold_start import ColdStart
from r1lab.stages.from_samples import model_folder, run_sampled
from r1lab.stages.hacking import HACKING, run_hacking
from r1lab.stages.more_data import French
from r1lab.stages.zero import PRESETS
from r1lab.task import load_problems, save_problems
from r1lab.training.config import GRPOConfig
from r1lab.training.run import prepare_folder, run_grpo
from r1lab.training.sft import SFTConfig, run_sft
from tests.fake_ledger import laboratory  # a fixture

SFT = SFTConfig(epochs=1, tokens_per_step=256, steps=3, processes=1)
SHORT = dict(questions=4, group_size=4, caps=((0, 24),), eval_samples=1, eval_problems=1, processes=1)
EASY = {"signs/1": 1.0}


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """One stage of each kind, small and finished, in the folder of an experiment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "0")  # in this process, as torchrun would with one
        patch.setenv("WORLD_SIZE", "1")
        place = tmp_path_factory.mktemp("stages")
        folder, test_file = place / "chain", place / "test.jsonl"
        save_problems(load_problems("data/test_signs.jsonl")[62:64], test_file)
        rl = replace(
            PRESETS["cpu"], model="data/zero", rollouts=3, minibatches=2, mixture=EASY,
            eval_file=str(test_file), eval_every=3, final_samples=1, **SHORT,
        )  # fmt: skip
        run_grpo(rl, "zero", runs=folder)
        sampling = replace(
            ColdStart().sampling, mixture=EASY, chunks=2, questions=8, max_tokens=64
        )
        taught = ColdStart(
            source=str(model_folder(str(folder / "zero"), "dev1")), base="data/tiny",
            sampling=sampling, sft=SFT, processes=1,
        )  # fmt: skip
        run_sampled(taught, "dev1", runs=folder)
        run_sft(SFT, "data/tiny", folder / "dev1/data", folder / "sft")
        new_reward_model("data/tiny").save(folder / "judges/helpfulness", average=0.0)
        hacking = replace(
            HACKING, model="data/tiny", reward_models=str(folder / "judges"), rollouts=3, **SHORT
        )
        run_hacking(hacking, folder / "hacking")
        yield folder


def alike(stage: Path, again: Path) -> bool:
    return stage_alike(Laboratory(run=run_grpo), stage, again)


@pytest.mark.parametrize("name", ["zero", "dev1", "sft", "hacking"])
def test_a_stage_of_each_kind_goes_as_it_did(stages, tmp_path, monkeypatch, name):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    before = {file: file.read_bytes() for file in stages.rglob("*") if file.is_file()}
    assert alike(stages / name, tmp_path / name)
    assert before == {file: file.read_bytes() for file in stages.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("file", "number"),
    [("zero/metrics.jsonl", "reward"), ("dev1/metrics.jsonl", "loss"), ("sft/metrics.jsonl", "loss"),
     ("hacking/human.jsonl", "entropy"), ("dev1/samples/chunk-0000.json", "tokens")],
)  # fmt: skip
def test_one_changed_number_is_found(stages, tmp_path, monkeypatch, file, number):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    name = file.partition("/")[0]
    shutil.copytree(stages / name, tmp_path / name)
    text = (tmp_path / file).read_text()
    before, found, after = text.partition(f'"{number}": ')
    assert found  # the first one: as if its first digit had been another
    (tmp_path / file).write_text(before + found + "1" + after)
    assert not alike(tmp_path / name, tmp_path / "again")


def test_settings_come_out_of_their_json_as_they_were():
    for config in (ColdStart(), PRESETS["cpu"], HACKING, replace(GRPOConfig(), lag=0)):
        stored = json.loads(json.dumps(asdict(config)))
        assert restored(type(config)(), stored) == config


def experiment(name: str, config, seed, key, folder, before) -> None:
    """In place of a chain and what starts from it: a stage, and a number that is kept of it."""
    prepare_folder(
        folder / "stage", replace(French(), chain=str(before or "")),
        resume=(folder / "stage/config.json").exists(), overwrite=False,
    )  # fmt: skip
    number = folder / "stage/number"
    if not number.exists():
        number.write_text("0.5")
    values = {"r1/signs": np.array([float(number.read_text()), np.nan])}
    save_run(name, seed, key, 7.5, values)


@pytest.fixture
def finished(laboratory, monkeypatch):
    """A chain, and what starts from it: made by code that has changed since, some rows more."""
    for name in ("chain", "french"):
        laboratory.experiments[name] = replace(
            laboratory.experiments[name], run=partial(experiment, name), load=partial(load_run, name)
        )
        laboratory.go(laboratory.job(name, 1))
        made = load_run(name, 1)
        about, more = made.about | {"commit": "then"}, {"r1/gone": np.ones(2)}
        write_run(name, 1, about, made.values | more)
    monkeypatch.setattr(runner, "code_key", lambda entry: "moved a function")
    monkeypatch.setattr(replay, "stage_alike", lambda laboratory, stage, again: True)
    return laboratory


def test_an_experiment_that_goes_as_it_did_takes_the_new_key_and_then_what_starts_from_it(finished):
    moved = replace(finished)
    jobs = [moved.job(name, 1) for name in ("chain", "french")]
    assert replay_stale(moved) == [job.name for job in jobs]
    for job in jobs:
        kept, old = load_run(job.arm, 1), finished.job(job.arm, 1)
        assert kept.about | {"replayed": None} == {
            "key": job.key, "seed": 1, "commit": "then", "wall_seconds": 7.5, "replayed": None
        }  # fmt: skip
        assert "replayed" in kept.about
        assert list(kept.values) == ["r1/signs"] and kept.values["r1/signs"][0] == 0.5
        assert job.left and not old.folder.exists()
    settings = json.loads((jobs[1].folder / "stage/config.json").read_text())
    assert settings["chain"] == str(jobs[0].folder) != str(finished.job("chain", 1).folder)
    assert replay_stale(replace(moved)) == []  # all is up to date
    moved.go(jobs[1])  # goes on where all is finished
    assert load_run("french", 1).values["r1/signs"][0] == 0.5


@pytest.mark.parametrize("differs", ["a stage", "a value", "the settings", "a measurement", "a judge"])
def test_an_experiment_that_goes_another_way_stays_stale(finished, monkeypatch, differs):
    job = finished.job("chain", 1)
    if differs == "a stage":
        monkeypatch.setattr(replay, "stage_alike", lambda *_: False)
    if differs == "a value":
        (job.folder / "stage/number").write_text("0.25")
    if differs == "the settings":
        stored = json.loads((job.folder / "stage/config.json").read_text())
        (job.folder / "stage/config.json").write_text(json.dumps({**stored, "samples": 99}))
    monkeypatch.setattr(replay, "launch", measured(0.5 if differs == "a measurement" else 1.0))
    monkeypatch.setattr(replay, "train_reward_models", judges(b"x" if differs == "a judge" else b"y"))
    if differs in ("a measurement", "a judge"):
        (job.folder / "stage/checkpoints/step-000004").mkdir(parents=True)
        measured(1.0)(None, 1, None, 4, 1, job.folder / "stage")
        judges(b"y")(None, job.folder / "reward_models")
    assert replay_stale(replace(finished)) == []
    assert job.folder.exists()
    assert load_run("chain", 1).about == {
        "key": job.key, "seed": 1, "commit": "then", "wall_seconds": 7.5
    }  # fmt: skip
    assert set(load_run("chain", 1).values) == {"r1/signs", "r1/gone"}


def measured(value: float):
    """In place of `launch`: what a measurement leaves."""

    def launch(worker, processes, model, samples, seed, folder, sets=()) -> None:
        np.savez(folder / "values.npz", programs=np.array([value]), safety=np.ones(2))

    return launch


def judges(weights: bytes):
    """In place of `train_reward_models`."""

    def train(config, out) -> None:
        (out / "helpfulness").mkdir(parents=True)
        (out / "helpfulness/model.safetensors").write_bytes(weights)
        (out / "helpfulness/summary.json").write_text('{"config": {}}')

    return train


def test_where_all_is_measured_and_judged_alike_it_is_kept(finished, monkeypatch):
    job = finished.job("chain", 1)
    monkeypatch.setattr(replay, "launch", measured(1.0))
    monkeypatch.setattr(replay, "train_reward_models", judges(b"y"))
    (job.folder / "stage/checkpoints/step-000004").mkdir(parents=True)
    measured(1.0)(None, 1, None, 4, 1, job.folder / "stage")
    judges(b"y")(None, job.folder / "reward_models")
    assert len(replay_stale(replace(finished))) == 2


BEGINS = {
    "prm_loss": [0.7, 0.3], "before": [0.5], "levels": {"2": {"solved": 0.5}, "3": {"solved": 0.25}},
    "arms": {paid: {"rows": [{"right": 0.1}, {"right": 0.2}]} for paid in ("rule", "sum")},
}  # fmt: skip


@pytest.fixture
def searched(laboratory, tmp_path, monkeypatch):
    """Two seeds of the searches, the second of which begins otherwise under the present code."""
    run = json.loads(json.dumps(BEGINS)) | {"key": "old", "wall_seconds": 9.0}
    run["levels"]["4"] = {"solved": 0.1}
    run["arms"]["rule"]["rows"].append({"right": 0.3})
    other = run | {"before": [0.25]}
    settings = settings_of(laboratory.job("search", 0).config)
    file = tmp_path / "search.json"
    file.write_text(json.dumps({"config": settings, "runs": [run, other]}))
    monkeypatch.setattr(replay, "SEARCH", file)
    monkeypatch.setattr(replay, "run_seed", lambda config, seed, levels, rewards: BEGINS)
    return laboratory


def test_a_seed_of_the_searches_that_begins_as_it_did_takes_the_new_key(searched):
    before = json.loads(replay.SEARCH.read_text())["runs"]
    job = searched.job("search", 0)
    assert keep_search(job) and not keep_search(searched.job("search", 1))
    assert not keep_search(searched.job("search", 2))  # was never run
    after = json.loads(replay.SEARCH.read_text())["runs"]
    assert after[0] == before[0] | {"key": job.key, "replayed": after[0]["replayed"]}
    assert after[1] == before[1]


@pytest.mark.parametrize(
    "change",
    [lambda run: run["levels"]["3"].update(solved=0.5),
     lambda run: run["arms"]["sum"]["rows"][1].update(right=0.9),
     lambda run: run.update(prm_loss=[0.7, 0.4])],
)  # fmt: skip
def test_a_seed_of_the_searches_that_begins_otherwise_stays_stale(searched, change):
    stored = json.loads(replay.SEARCH.read_text())
    change(stored["runs"][0])
    replay.SEARCH.write_text(json.dumps(stored))
    assert not keep_search(searched.job("search", 0))
    assert json.loads(replay.SEARCH.read_text()) == stored


def test_searches_with_other_settings_are_not_even_begun(searched, monkeypatch):
    monkeypatch.setattr(replay, "run_seed", None)
    assert not keep_search(replace(searched.job("search", 0), config=CompareConfig(draws=3)))
