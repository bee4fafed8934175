"""A run that is killed at any moment goes on to the same weights, bit for bit."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from r1lab.errors import InputError
from r1lab.evaluation.measure import Evaluation
from r1lab.evaluation.rows import read_rows
from r1lab.world.bases import build_model
from r1lab.world.tokenizer import build_tokenizer
from r1lab.task import load_problems, save_problems
from r1lab.training import checkpoint
from r1lab.training import run as grpo_run
from r1lab.training.config import GRPOConfig

SEEDED_KILLS, KILLS_WHILE_WRITING = 20, 5


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> GRPOConfig:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    build_model("tiny", len(tokenizer), 0, 1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    test_file = folder / "test.jsonl"
    save_problems(load_problems("data/test_signs.jsonl")[62:66], test_file)
    return GRPOConfig(
        model=str(folder), rollouts=6, questions=4, group_size=4, minibatches=2, arm="random",
        caps=((0, 16), (6, 24)), reference_every=5, eval_file=str(test_file), eval_every=3,
        eval_samples=2, eval_problems=1, final_samples=2, checkpoint_every=1, learning_rate=1e-3, sample_rows=2,
    )  # fmt: skip


def in_child(work) -> int:
    """Run `work` in a forked process; its exit code, negative when a signal ended it."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return child


def finish(child: int, kill_after: float | None = None) -> int:
    deadline = time.monotonic() + (kill_after if kill_after is not None else 120)
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start(config: GRPOConfig, run: Path) -> None:
    grpo_run.prepare_folder(run, config, resume=False, overwrite=False)


def final_state(run: Path, config: GRPOConfig) -> dict[str, torch.Tensor]:
    folder = checkpoint.checkpoint_path(run, config.steps)
    state = load_file(folder / "model.safetensors")
    reference = load_file(folder / "reference.safetensors")
    return state | {f"reference.{name}": value for name, value in reference.items()}


def compared_rows(run: Path) -> list[dict]:
    """The metrics, without what depends on the clock."""
    rows = read_rows(run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in ("seconds", "elapsed")} for row in rows]


@pytest.fixture(scope="module")
def unbroken(config, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    start(config, run)
    assert finish(in_child(lambda: grpo_run.grpo_worker(config, run))) == 0
    return run


def assert_same(run: Path, unbroken: Path, config: GRPOConfig) -> None:
    expected = final_state(unbroken, config)
    got = final_state(run, config)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert compared_rows(run) == compared_rows(unbroken)


def test_killed_at_many_moments_it_ends_with_the_same_weights(config, unbroken, tmp_path):
    rng = random.Random(0)
    kills, attempt = 0, 0
    while kills < SEEDED_KILLS:
        run = tmp_path / f"run{attempt}"
        attempt += 1
        start(config, run)
        code = None
        while code != 0:
            kill_after = rng.uniform(0.05, 1.5) if kills < SEEDED_KILLS else None
            code = finish(in_child(lambda: grpo_run.grpo_worker(config, run)), kill_after)
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
        assert_same(run, unbroken, config)


def test_killed_inside_the_writing_of_a_checkpoint_it_ends_with_the_same_weights(
    config, unbroken, tmp_path
):
    run = tmp_path / "run"
    start(config, run)

    def die_while_writing(at_file: int):
        def work() -> int:
            written = 0
            honest = checkpoint._to_disk

            def to_disk(path):
                nonlocal written
                written += 1
                if written == at_file:
                    os.kill(os.getpid(), signal.SIGKILL)
                honest(path)

            checkpoint._to_disk = to_disk
            return grpo_run.grpo_worker(config, run)

        return work

    for number in range(KILLS_WHILE_WRITING):
        assert finish(in_child(die_while_writing(12 + number))) == -signal.SIGKILL
    assert finish(in_child(lambda: grpo_run.grpo_worker(config, run))) == 0
    assert_same(run, unbroken, config)


def test_ctrl_c_saves_and_the_run_goes_on(config, unbroken, tmp_path):
    run = tmp_path / "run"
    start(config, run)
    child = in_child(lambda: grpo_run.grpo_worker(config, run))
    while not checkpoint.list_checkpoints(run):
        time.sleep(0.01)
    os.kill(child, signal.SIGINT)
    assert finish(child) == grpo_run.STOPPED
    assert not (run / "summary.json").exists()
    assert finish(in_child(lambda: grpo_run.grpo_worker(config, run))) == 0
    assert_same(run, unbroken, config)


def test_a_finished_run_is_left_alone(config, unbroken):
    with pytest.raises(InputError, match="finished.*--name.*--overwrite"):
        grpo_run.prepare_folder(unbroken, config, resume=False, overwrite=False)


def test_a_run_that_came_to_nothing_takes_other_settings(config, tmp_path):
    """It was refused after its settings were stored, for example for want of vLLM."""
    grpo_run.prepare_folder(tmp_path / "run", config, resume=False, overwrite=False)
    other = replace(config, learning_rate=1.0)
    grpo_run.prepare_folder(tmp_path / "run", other, resume=False, overwrite=False)
    assert json.loads((tmp_path / "run/config.json").read_text())["learning_rate"] == 1.0


def test_several_processes_do_not_delete_what_the_others_look_for(config, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(InputError, match="by hand, or give --name"):
            grpo_run.prepare_folder(tmp_path / "run", config, resume=False, overwrite=True)
    assert (tmp_path / "run").exists()


def test_another_config_does_not_continue_a_run(config, tmp_path):
    start(config, tmp_path / "run")
    (tmp_path / "run/metrics.jsonl").touch()
    with pytest.raises(InputError, match="other settings .learning_rate."):
        grpo_run.prepare_folder(
            tmp_path / "run", replace(config, learning_rate=1.0), resume=False, overwrite=False
        )


def test_resume_without_a_run_is_refused(config, tmp_path):
    with pytest.raises(InputError, match="no run to resume"):
        grpo_run.prepare_folder(tmp_path / "none", config, resume=True, overwrite=False)
    assert not (tmp_path / "none").exists()


def test_a_damaged_checkpoint_is_named(config, unbroken, tmp_path):
    state = checkpoint.checkpoint_path(unbroken, config.steps) / "trainer.pt"
    broken = tmp_path / "step-000001"
    broken.mkdir()
    (broken / "trainer.pt").write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InputError, match="trainer.pt is missing or damaged; delete this checkpoint"):
        checkpoint.load_trainer_state(broken)


def test_the_summary_has_what_the_contract_names(config, unbroken):
    summary = json.loads((unbroken / "summary.json").read_text())
    for name in ("wall_seconds", "train_seconds", "peak_memory_gb", "machine", "steps", "seed", "arm"):
        assert name in summary
    for part in (summary["base"], summary["final"]):
        for name in ("pass_at_1", "pass_at_1_strict", "mean_tokens", "reflection_per_answer", "format"):
            assert name in part
        assert {"n", "pass_at_1", "ci95"} <= part["by_level"]["1"].keys()
    assert summary["train_seconds"] <= summary["wall_seconds"]


def test_a_sample_of_an_evaluation_stands_beside_its_own_question(config, unbroken):
    """With a subset of the problems, too: each stored answer uses the question's numbers."""
    rows = [row for row in read_rows(unbroken / "samples.jsonl") if row["advantage"] is None]
    evaluated = {row["step"] for row in rows}
    assert len(evaluated) >= 2
    base = Evaluation.load(unbroken / "eval_base.npz")
    for path in (unbroken / "evals").glob("step-*.npz"):
        result = Evaluation.load(path)
        stored = {row["id"]: row["completion"] for row in rows if row["step"] == int(path.stem[5:])}
        assert stored
        for problem, completions in zip(result.ids, result.completions, strict=True):
            if problem in stored:
                assert stored[problem] == completions[0]
    assert len(base.ids) == 4
