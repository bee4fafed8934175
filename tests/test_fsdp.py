"""A sharded model learns what a whole one learns, on any number of processes, through any stop."""

import os
import pickle
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from r1lab.errors import InputError
from r1lab.objective import LossConfig
from r1lab.models.lora import LoRA
from r1lab.models.policy import Policy, load_model
from r1lab.sources.templates import apply_template
from r1lab.training import checkpoint
from r1lab.training.checkpoint import SHARDS
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import Parallel, clip_gradients
from r1lab.training.loop import Learner
from r1lab.training.processes import StopRequest, _cause_of_death, join_world, launch
from r1lab.training.rl import rl_work
from r1lab.run import Run
from r1lab.training.supervised import SupervisedConfig, add_gradient, train_supervised
from tests.elsewhere import by_r1lab, by_transformers
from tests.experiments.lagged import LaggedLearner
from tests.experiments.ppo import PPOLearner
from tests.small_run import Job, coin_task, tiny_model

SHARDED = Parallel(shard=True)
THRIFTY = Parallel(shard=True, recompute=True, reduce_every=True, offload=True)


def processes(count: int, work: Callable, *args) -> list:
    """What `work(*args)` returns, or the error that it raises, in forked processes of one group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(rank) for rank in range(count)]
        children = [
            os.fork() or _child(rank, count, port, file, work, args) for rank, file in enumerate(files)
        ]
        for child in children:
            os.waitpid(child, 0)
        return [pickle.loads(file.read_bytes()) for file in files]


def _child(rank: int, count: int, port: int, file: Path, work: Callable, args) -> None:
    try:
        os.environ.update(
            RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )  # fmt: skip
        try:
            result = work(*args)
        except Exception as error:  # the parent judges it
            result = error
        if dist.is_initialized():
            dist.destroy_process_group()
        file.write_bytes(pickle.dumps(result))
    finally:
        os._exit(0)


CONFIG = GRPOConfig.preset(
    "cpu", rollouts=3, questions=4, group_size=4, minibatches=2, caps=((0, 12), (4, 20)),
    reference_every=3, eval_every=9, eval_samples=1, eval_problems=1, final_samples=1,
    checkpoint_every=1, learning_rate=1e-4, warmup_steps=1, loss=LossConfig(beta=0.05),
    microbatch_tokens=128, sample_rows=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("model")
    return Job(tiny_model(folder), coin_task(folder), CONFIG)


def changed(job: Job, **changes) -> Job:
    return replace(job, config=replace(job.config, **changes))


def trained(job: Job, folder: Path, count: int) -> Run:
    """A run on `count` processes."""
    folder.mkdir(parents=True, exist_ok=True)
    assert processes(count, job.work, Run(folder)) == [0] * count
    return Run(folder)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.model / "model.safetensors")


def training_rows(run: Run) -> list[dict]:
    rows = [row for row in run.metrics if row["kind"] == "train"]
    return [{k: v for k, v in row.items() if k not in ("seconds", "elapsed")} for row in rows]


def assert_alike(run: Run, other: Run) -> None:
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max() for name in ours) < 1e-5
    for row, expected in zip(training_rows(run), training_rows(other), strict=True):
        assert row == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def alone(job, tmp_path_factory) -> Run:
    """The run in one process that holds everything."""
    run = trained(job, tmp_path_factory.mktemp("alone"), 1)
    before = load_file(Path(job.model) / "model.safetensors")
    moved = weights(run)
    assert max((moved[name] - before[name]).abs().max() for name in moved) > 1e-4
    return run


@pytest.fixture(scope="module")
def two(job, tmp_path_factory) -> Run:
    return trained(changed(job, parallel=SHARDED), tmp_path_factory.mktemp("two"), 2)


def test_two_sharded_processes_learn_what_one_learns(alone, two):
    assert_alike(two, alone)


def test_an_adapter_is_learned_by_two_sharded_processes_as_by_one(job, tmp_path):
    found = []
    for count, parallel in ((1, Parallel()), (2, SHARDED)):
        small = changed(job, rollouts=2, lora=LoRA(4), parallel=parallel)
        run = trained(small, tmp_path / f"of-{count}", count)
        found.append(load_file(run.model / "adapter_model.safetensors"))
    assert max(value.abs().max() for name, value in found[0].items() if "lora_B" in name) > 1e-4
    assert max((value - found[1][name]).abs().max() for name, value in found[0].items()) < 1e-5


def test_their_checkpoint_opens_in_transformers_and_answers_alike(two):
    prompts = [apply_template("small", f"make {n} from {n},2,1") for n in (3, 10, 26)]
    expected = by_transformers(two.model, prompts, 24)
    assert by_r1lab(two.model, prompts, 24) == expected


def test_four_processes_that_save_memory_and_pack_learn_the_same(job, alone, tmp_path):
    thrifty = changed(job, parallel=THRIFTY, pack=True)
    assert_alike(trained(thrifty, tmp_path / "run", 4), alone)


@pytest.mark.parametrize(
    ("learner", "settings", "column"),
    [(PPOLearner, {"rollouts": 1}, "value_loss"),
     (partial(LaggedLearner, lag=1), {"learning_rate": 1e-5}, "drift_mean")],
    ids=["a critic", "earlier policies"],
)  # fmt: skip
def test_what_is_beside_the_policy_is_shared_out_as_well(job, tmp_path, learner, settings, column):
    job = replace(job, learner=learner)
    whole = trained(changed(job, **settings), tmp_path / "whole", 1)
    shared = trained(changed(job, **settings, parallel=SHARDED), tmp_path / "shared", 2)
    assert_alike(shared, whole)
    assert column in training_rows(whole)[-1]


def test_documents_are_learned_alike_sharded_and_packed(job, tmp_path):
    documents = lambda step: [([3, 4], list(range(5, 6 + 3 * i))) for i in range(1, 9)]  # noqa: E731
    settings = SupervisedConfig(
        steps=3, checkpoint_every=3, learning_rate=1e-4, warmup_steps=1, microbatch_tokens=32
    )

    def fine_tune(settings: SupervisedConfig, run: Run) -> bool:
        world, model = join_world(settings.parallel), load_model(job.model)
        return train_supervised(world, StopRequest(), run, settings, *model, documents)

    runs = [Run(tmp_path / name) for name in ("alone", "two")]
    for run in runs:
        run.folder.mkdir()
    assert processes(1, fine_tune, settings, runs[0]) == [True]
    shared = replace(settings, parallel=SHARDED, pack=True)
    assert processes(2, fine_tune, shared, runs[1]) == [True, True]
    alone, two = map(weights, runs)
    assert max((alone[name] - two[name]).abs().max() for name in alone) < 1e-5


def test_a_process_holds_its_share_and_samples_from_the_whole(job):
    def look() -> tuple:
        world = join_world(Parallel(shard=True))
        model, tokenizer = load_model(job.model)
        whole = {name: p.detach().clone() for name, p in model.named_parameters()}
        half = replace(CONFIG, precision="bfloat16")
        learner = Learner(half, job.task, Policy(model), tokenizer, world)
        learner.refresh_sampler()
        held = sum(p.to_local().numel() for p in learner.policy.parameters())
        kinds = {(p.dtype, isinstance(p, DTensor)) for p in learner.policy.parameters()}
        sampled = dict(learner.sampler.model.named_parameters())
        same = all(torch.equal(sampled[name], whole[name].bfloat16()) for name in whole)
        return held, sum(p.numel() for p in whole.values()), kinds, same

    for held, total, kinds, same in processes(2, look):
        assert held == pytest.approx(total / 2, rel=0.02)
        assert kinds == {(torch.float32, True)} and same


def test_gradients_are_summed_and_their_norm_is_that_of_all_shares(job):
    """Each process has the loss of its own row; a mean over processes would be half of this."""
    model, _ = load_model(job.model)
    rows = torch.arange(3, 19).view(2, 8)
    mask = torch.arange(8) > 2

    def gradients(policy, own) -> torch.Tensor:
        policy(rows[own], mask.expand(len(rows[own]), -1)).logp.sum().backward()
        return clip_gradients(policy, 1e-3)

    def shared() -> tuple:
        world = join_world(SHARDED)
        policy = world.place(Policy(load_model(job.model)[0]))
        norm = gradients(policy, slice(world.rank, world.rank + 1))
        return norm, {name: p.grad.full_tensor() for name, p in policy.named_parameters()}

    policy = Policy(model)
    norm = gradients(policy, slice(None))
    expected = {name: p.grad for name, p in policy.named_parameters()}
    for other_norm, found in processes(2, shared):
        assert other_norm.item() == pytest.approx(norm.item(), rel=1e-5)
        assert all((found[name] - expected[name]).abs().max() < 1e-7 for name in expected)


def test_an_update_in_bfloat16_is_near_the_one_in_float32(job):
    """Weights, gradients and optimizer stay in float32; layers compute in bfloat16.

    A rounding to its 8 bits is wrong by up to 0.4 %, and dozens of them by some per cent of the
    gradient's length. Adam's first step moves each weight by the learning rate, so that only weights
    whose gradient is smaller than that error may move the other way.
    """
    documents = [([3, 4], list(range(5, 9 + 5 * i))) for i in range(1, 9)]
    settings = SupervisedConfig(steps=1, microbatch_tokens=64)

    def update(precision: str) -> tuple:
        world = join_world(Parallel(shard=True))
        model, tokenizer = load_model(job.model)
        policy = world.place(Policy(model), dtype=getattr(torch, precision))
        before = [p.detach().full_tensor().clone() for p in policy.parameters()]
        loss = add_gradient(settings, policy, documents, tokenizer, world)
        kinds = {kind for p in policy.parameters() for kind in (p.dtype, p.grad.dtype)}
        gradient = torch.cat([p.grad.full_tensor().flatten() for p in policy.parameters()])
        torch.optim.AdamW(policy.parameters(), lr=1e-4, weight_decay=0.0).step()
        after = [p.detach().full_tensor() for p in policy.parameters()]
        moved = torch.cat([(b - a).flatten() for a, b in zip(before, after, strict=True)])
        return sum(world.gather(loss)), kinds, gradient, moved

    found = {precision: processes(2, update, precision) for precision in ("float32", "bfloat16")}
    (loss, kinds, gradient, moved), _ = found["float32"]
    for half_loss, half_kinds, half_gradient, half_moved in found["bfloat16"]:
        assert half_kinds == kinds == {torch.float32}
        assert half_loss == pytest.approx(loss, rel=0.01)
        error = (half_gradient - gradient).norm() / gradient.norm()
        assert 1e-4 < error < 0.05, "less: it was not bfloat16 that computed"
        against = (half_moved * moved < 0).sum() / (moved != 0).sum()
        assert against < 0.05 and half_moved.abs().max() < 1.01e-4


FAULT = ProcessRaisedException("Traceback", 0, 1)


@pytest.mark.parametrize(("death", "codes", "words"), [
    (FAULT, [1, -9], "worker 1 was killed by SIGKILL"),
    (ProcessExitedException("", 1, 1, -11, "SIGSEGV"), [-15, -11], "1 was killed by SIGSEGV"),
    (ProcessExitedException("", 0, 1, 3, None), [3, -15], "worker 0 ended unexpectedly"),
    (FAULT, [1, -15], "Traceback"),
])  # fmt: skip
def test_the_worker_that_died_first_is_named_whoever_is_noticed_first(death, codes, words):
    assert words in str(_cause_of_death(death, codes))


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(first, then, job, alone, tmp_path):
    parallel = {1: Parallel(), 2: SHARDED}
    started = changed(job, rollouts=2, parallel=parallel[first])
    run = trained(started, tmp_path / "run", first)
    assert len([*(run.model / SHARDS).glob("*.distcp")]) == first
    (run.folder / "eval_final.npz").unlink()
    trained(changed(job, parallel=parallel[then]), run.folder, then)
    assert_alike(run, alone)


def test_processes_with_other_settings_are_refused(job, tmp_path):
    def work() -> int:
        return changed(job, seed=int(os.environ["RANK"]), parallel=SHARDED).work(Run(tmp_path))

    for error in processes(2, work):
        assert isinstance(error, InputError)
        assert "settings of process 1 differ from those of process 0" in str(error)


def test_a_full_disk_ends_the_run_on_every_process(job, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_model", full)
    for error in processes(2, changed(job, parallel=SHARDED).work, Run(tmp_path)):
        assert isinstance(error, InputError) and "No space left" in str(error)
    assert Run(tmp_path).checkpoints == []


def dies_in_the_fourth_update(world, stop, run: Run, *args) -> bool:
    honest = Learner.add_loss

    def add_loss(self, *args):
        if self.step == 3 and self.world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(self, *args)

    Learner.add_loss = add_loss
    return rl_work(world, stop, run, *args)


def test_a_worker_killed_in_mid_step_is_named_and_the_run_goes_on(job, alone, tmp_path):
    sharded, run = changed(job, parallel=SHARDED), Run(tmp_path)
    started = time.monotonic()
    args = (job.model, job.task, sharded.config)
    with pytest.raises(InputError, match="worker 1 was killed by SIGKILL.*--resume"):
        launch(dies_in_the_fourth_update, 2, run, *args, parallel=SHARDED)
    assert time.monotonic() - started < 300
    assert [path.name for path in run.checkpoints] == ["step-000002"]
    trained(sharded, run.folder, 2)
    assert_alike(run, alone)


def test_settings_of_sharding_without_sharding_are_refused():
    with pytest.raises(InputError, match="set shard as well"):
        Parallel(recompute=True)
