"""A run that is killed at any moment goes on to the same weights, bit for bit."""

import os
import random
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from r1lab.errors import InputError
from r1lab.evaluation.measure import Evaluation
from r1lab.models.policy import load_policy
from r1lab.training import checkpoint
from r1lab.training.config import GRPOConfig
from r1lab.training.processes import STOPPED
from r1lab.training.rl import grpo
from r1lab.run import FORMER, Run
from tests.small_run import Job, coin_task, stored_tensors, tiny_model

SEEDED_KILLS, KILLS_WHILE_WRITING = 20, 5


CONFIG = GRPOConfig.preset(
    "cpu", rollouts=6, questions=4, group_size=4, minibatches=2, caps=((0, 16), (6, 24)),
    reference_every=5, eval_every=3, eval_samples=2, eval_problems=1, final_samples=2,
    checkpoint_every=1, learning_rate=1e-3, sample_rows=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("model")
    return Job(tiny_model(folder), coin_task(folder), CONFIG)


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


def final_state(run: Run) -> dict[str, torch.Tensor]:
    folder = checkpoint.checkpoint_path(run.folder, CONFIG.steps)
    return load_file(folder / "model.safetensors") | stored_tensors(folder)


def compared_rows(run: Run) -> list[dict]:
    """The metrics, without what depends on the clock."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "elapsed")} for row in run.metrics]


@pytest.fixture(scope="module")
def unbroken(job, tmp_path_factory) -> Run:
    run = job.start(tmp_path_factory.mktemp("unbroken") / "run")
    assert finish(in_child(lambda: job.work(run))) == 0
    return run


def assert_same(run: Run, unbroken: Run) -> None:
    expected, got = final_state(unbroken), final_state(run)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert compared_rows(run) == compared_rows(unbroken)


def test_killed_at_many_moments_it_ends_with_the_same_weights(job, unbroken, tmp_path):
    rng = random.Random(0)
    kills, attempt = 0, 0
    while kills < SEEDED_KILLS:
        run = job.start(tmp_path / f"run{attempt}")
        attempt += 1
        code = None
        while code != 0:
            kill_after = rng.uniform(0.05, 1.5) if kills < SEEDED_KILLS else None
            code = finish(in_child(lambda: job.work(run)), kill_after)
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
        assert_same(run, unbroken)


def test_killed_inside_the_writing_of_a_checkpoint_it_ends_with_the_same_weights(job, unbroken, tmp_path):
    run = job.start(tmp_path / "run")

    def die_while_writing(at_save: int):
        def work() -> int:
            written = 0
            honest = checkpoint.save_model

            def save_model(*args, **options):
                nonlocal written
                written += 1
                honest(*args, **options)
                if written == at_save:
                    os.kill(os.getpid(), signal.SIGKILL)

            checkpoint.save_model = save_model
            return job.work(run)

        return work

    for number in range(KILLS_WHILE_WRITING):
        assert finish(in_child(die_while_writing(1 + number % 2))) == -signal.SIGKILL
    assert finish(in_child(lambda: job.work(run))) == 0
    assert_same(run, unbroken)


def test_ctrl_c_saves_and_the_run_goes_on(job, unbroken, tmp_path):
    run = job.start(tmp_path / "run")
    child = in_child(lambda: job.work(run))
    while not run.checkpoints:
        time.sleep(0.01)
    os.kill(child, signal.SIGINT)
    assert finish(child) == STOPPED
    assert not run.finished
    assert finish(in_child(lambda: job.work(run))) == 0
    assert_same(run, unbroken)


def test_a_finished_run_with_more_rollouts_ends_as_a_long_one(job, unbroken, tmp_path, alone):
    """As `r1lab zero --resume --rollouts 6` does; nothing else may change."""
    for rollouts in (4, CONFIG.rollouts):
        config = replace(CONFIG, rollouts=rollouts, processes=1)
        run = grpo(job.model, job.task, config, "run", runs=tmp_path)
    expected, got = final_state(unbroken), final_state(run)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert run.summary["steps"] == CONFIG.steps and run.config["rollouts"] == CONFIG.rollouts
    other = replace(CONFIG, rollouts=9, learning_rate=1.0, processes=1)
    with pytest.raises(InputError, match=r"other settings \(learning_rate\)"):
        grpo(job.model, job.task, other, "run", runs=tmp_path)
    shutil.rmtree(run.folder / "checkpoints")
    longer = replace(CONFIG, rollouts=9, processes=1)
    with pytest.raises(InputError, match="no checkpoint to go on from"):
        grpo(job.model, job.task, longer, "run", runs=tmp_path)
    assert run.finished


def test_a_task_that_has_only_test_problems_is_refused_before_anything_is_stored(job, tmp_path):
    task = replace(job.task, problems=job.task.test)
    with pytest.raises(InputError, match="drew 0 of 4 problems that are not in its test set"):
        grpo(job.model, task, CONFIG, "run", runs=tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_left_alone(job, unbroken):
    with pytest.raises(InputError, match="finished.*--name.*--overwrite"):
        job.start(unbroken.folder)


def test_a_run_that_came_to_nothing_takes_other_settings(job, tmp_path):
    """It was refused after its settings were stored, for example for want of vLLM."""
    run = job.start(tmp_path / "run")
    run.prepare(replace(CONFIG, learning_rate=1.0))
    assert run.config["learning_rate"] == 1.0


def test_several_processes_do_not_delete_what_the_others_look_for(tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(InputError, match="by hand, or give --name"):
            run.prepare(CONFIG, overwrite=True)
    assert run.folder.exists()


@pytest.mark.parametrize(("config", "about", "former", "words"), [
    (replace(CONFIG, learning_rate=1.0), {"task": {"name": "a"}}, {}, "other settings .learning_rate."),
    (CONFIG, {"task": {"name": "b"}}, {}, "another task: its problems, rewards or check"),
    (replace(CONFIG, processes=7), {"task": {"name": "a"}}, FORMER, ""),
    (CONFIG, {"task": {"name": "a"}}, FORMER | {"lag": 1}, "other settings .lag."),
])  # fmt: skip
def test_only_the_same_settings_and_task_continue_a_run(tmp_path, config, about, former, words):
    """Also one from when there were more settings, if those had today's effect."""
    run = Run(tmp_path / "run")
    run.prepare(CONFIG, {"task": {"name": "a"}})
    run.write("config.json", run.config | former)
    (run.folder / "metrics.jsonl").touch()
    if words:
        with pytest.raises(InputError, match=words):
            run.prepare(config, about)
    else:
        run.prepare(config, about)


def test_two_runs_of_one_name_do_not_write_into_each_other(tmp_path):
    run = Run(tmp_path / "run")
    with run.locked():
        with pytest.raises(InputError, match="another process is working in .*give --name"):
            with Run(tmp_path / "run").locked():
                raise AssertionError
    with run.locked():
        assert not run.folder.exists()


def test_a_damaged_checkpoint_is_named(unbroken, tmp_path):
    state = checkpoint.checkpoint_path(unbroken.folder, CONFIG.steps) / "trainer.pt"
    broken = tmp_path / "step-000001"
    broken.mkdir()
    (broken / "trainer.pt").write_bytes(state.read_bytes()[:-100])
    with pytest.raises(InputError, match="a file is missing or damaged; delete this checkpoint"):
        checkpoint.restore(broken, {}, {})


def test_the_summary_has_what_the_contract_names(unbroken):
    summary = unbroken.summary
    for name in ("wall_seconds", "train_seconds", "peak_memory_gb", "machine", "steps", "seed", "arm"):
        assert name in summary
    for part in (summary["base"], summary["final"]):
        for name in ("pass_at_1", "pass_at_1_strict", "mean_tokens", "reflection_per_answer", "format"):
            assert name in part
        assert {"n", "pass_at_1", "ci95"} <= part["by_level"]["1"].keys()
    assert summary["train_seconds"] <= summary["wall_seconds"]


def test_a_sample_of_an_evaluation_is_beside_its_own_question(unbroken):
    """With a subset of the problems, too: each stored answer uses the question's numbers."""
    rows = [row for row in unbroken.samples if row["advantage"] is None]
    evaluated = {row["step"] for row in rows}
    assert len(evaluated) >= 2
    base = Evaluation.load(unbroken.folder / "eval_base.npz")
    for path in (unbroken.folder / "evals").glob("step-*.npz"):
        result = Evaluation.load(path)
        stored = {row["id"]: row["completion"] for row in rows if row["step"] == int(path.stem[5:])}
        assert stored
        for problem, completions in zip(result.ids, result.completions, strict=True):
            if problem in stored:
                assert stored[problem] == completions[0]
    assert len(base.ids) == 4


@pytest.mark.parametrize("stops", [(), (1, 1)])
def test_a_run_ends_with_the_rollout_in_which_its_compute_is_spent(job, tmp_path, stops):
    def worked(name: str, config: GRPOConfig) -> Run:
        run = replace(job, config=config).start(tmp_path / name)
        for rollouts in (*stops, None):
            assert replace(job, config=config).work(run, rollouts) == 0
        return run

    free = worked("free", CONFIG).summary
    parameters = load_policy(job.model)[0].model.num_parameters()
    tokens = free["flops"] / CONFIG.flops(parameters, 1)
    assert free["steps"] == CONFIG.steps and tokens == int(tokens) > 0

    limited = replace(CONFIG, flops_limit=free["flops"] // 2)
    ended = worked("limited", limited)
    summary, rows = ended.summary, [row for row in ended.metrics if row["kind"] == "train"]
    assert summary["flops"] >= limited.flops_limit > 0
    assert 0 < summary["steps"] == rows[-1]["step"] < CONFIG.steps
    assert summary["checkpoint"].endswith(f"step-{summary['steps']:06d}")
    written = rows[-1]["tokens_mean"] * CONFIG.questions * CONFIG.group_size
    prompts = 20 * CONFIG.questions * CONFIG.group_size  # of the last rollout, at most
    assert summary["flops"] - CONFIG.flops(parameters, round(written + prompts)) < limited.flops_limit
