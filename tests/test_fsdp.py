"""A sharded model learns what a whole one learns, on any number of processes, through any stop."""

import os
import pickle
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from datasets import Dataset
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from transformers import PreTrainedTokenizerFast

from r1lab.errors import InputError
from r1lab.files import read_rows
from r1lab.grpo import LossConfig
from r1lab.models.policy import Policy, load_model
from r1lab.world.bases import build_model
from r1lab.world.tokenizer import build_tokenizer
from r1lab.sources.templates import apply_template
from r1lab.task import load_problems, save_problems
from r1lab.training import fsdp
from r1lab.training.checkpoint import SHARDS, checkpoint_path, list_checkpoints
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import (
    Parallel,
    _obituary,
    clip_gradients,
    join_world,
    run_workers,
)
from r1lab.training.loop import Learner
from r1lab.training.run import grpo_worker, prepare_folder
from r1lab.training.supervised import SupervisedConfig, add_gradient, train_supervised
from tests.elsewhere import by_r1lab, by_transformers

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
            os.fork() or _child(rank, count, port, file, work, args)
            for rank, file in enumerate(files)
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
        model=str(folder), rollouts=3, questions=4, group_size=4, minibatches=2, arm="random",
        caps=((0, 12), (4, 20)), reference_every=3, eval_file=str(test_file), eval_every=9,
        eval_samples=1, eval_problems=1, final_samples=1, checkpoint_every=1, learning_rate=1e-4,
        warmup_steps=1, loss=LossConfig(beta=0.05), microbatch_tokens=128, sample_rows=1,
    )  # fmt: skip


def trained(config: GRPOConfig, run: Path, count: int) -> Path:
    """The folder of a run on `count` processes."""
    run.mkdir(parents=True, exist_ok=True)
    assert processes(count, grpo_worker, config, run) == [0] * count
    return run


def weights(run: Path, config: GRPOConfig) -> dict[str, torch.Tensor]:
    return load_file(checkpoint_path(run, config.steps) / "model.safetensors")


def training_rows(run: Path) -> list[dict]:
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]
    return [{k: v for k, v in row.items() if k not in ("seconds", "elapsed")} for row in rows]


def assert_alike(run: Path, other: Path, config: GRPOConfig) -> None:
    ours, theirs = weights(run, config), weights(other, config)
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max() for name in ours) < 1e-5
    for row, expected in zip(training_rows(run), training_rows(other), strict=True):
        assert row == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory) -> Path:
    """The run in one process that holds everything."""
    run = trained(config, tmp_path_factory.mktemp("alone"), 1)
    before = load_file(Path(config.model) / "model.safetensors")
    moved = weights(run, config)
    assert max((moved[name] - before[name]).abs().max() for name in moved) > 1e-4
    return run


@pytest.fixture(scope="module")
def two(config, tmp_path_factory) -> Path:
    return trained(replace(config, parallel=SHARDED), tmp_path_factory.mktemp("two"), 2)


def test_two_sharded_processes_learn_what_one_learns(config, alone, two):
    assert_alike(two, alone, config)


def test_their_checkpoint_opens_in_transformers_and_answers_alike(config, two):
    prompts = [apply_template("small", f"make {n} from {n},2,1") for n in (3, 10, 26)]
    folder = checkpoint_path(two, config.steps)
    told = by_transformers(folder, prompts, 24, PreTrainedTokenizerFast)
    assert by_r1lab(folder, prompts, 24) == told


def test_four_processes_that_save_memory_and_pack_learn_the_same(config, alone, tmp_path):
    settings = replace(config, parallel=THRIFTY, pack=True)
    assert_alike(trained(settings, tmp_path / "run", 4), alone, config)


def test_a_critic_is_sharded_as_well(config, tmp_path):
    settings = replace(config, rollouts=1, advantage="gae", checkpoint_every=1)
    whole = trained(settings, tmp_path / "whole", 1)
    shared = trained(replace(settings, parallel=SHARDED), tmp_path / "shared", 2)
    assert_alike(shared, whole, settings)


def test_earlier_policies_and_demonstrations_are_shared_out_as_well(config, tmp_path):
    rows = [{"prompt": f"make 3 from {a},1", "completion": "ok " * a} for a in range(1, 9)]
    Dataset.from_list(rows).save_to_disk(tmp_path / "rows")
    settings = replace(
        config, lag=1, demonstrations=str(tmp_path / "rows"), demonstration_weight=0.5,
        demonstration_rows=5, learning_rate=1e-5,
    )  # fmt: skip
    whole = trained(settings, tmp_path / "whole", 1)
    shared = trained(replace(settings, parallel=SHARDED), tmp_path / "shared", 2)
    assert_alike(shared, whole, settings)
    assert {"drift_mean", "demonstration_loss"} < set(training_rows(whole)[-1])


def test_documents_are_learned_alike_sharded_and_packed(config, tmp_path):
    documents = lambda step: [([3, 4], list(range(5, 6 + 3 * i))) for i in range(1, 9)]  # noqa: E731
    settings = SupervisedConfig(
        steps=3, checkpoint_every=3, learning_rate=1e-4, warmup_steps=1, microbatch_tokens=32
    )

    def fine_tune(settings: SupervisedConfig, run: Path) -> bool:
        return train_supervised(settings, run, *load_model(config.model), documents)

    assert processes(1, fine_tune, settings, tmp_path / "alone") == [True]
    shared = replace(settings, parallel=SHARDED, pack=True)
    assert processes(2, fine_tune, shared, tmp_path / "two") == [True, True]
    alone, two = (
        load_file(checkpoint_path(tmp_path / name, 3) / "model.safetensors")
        for name in ("alone", "two")
    )
    assert max((alone[name] - two[name]).abs().max() for name in alone) < 1e-5


def test_a_process_holds_its_share_and_samples_from_the_whole(config):
    def look() -> tuple:
        world = join_world(Parallel(shard=True, precision="bfloat16"))
        model, tokenizer = load_model(config.model)
        whole = {name: p.detach().clone() for name, p in model.named_parameters()}
        learner = Learner(config, Policy(model), tokenizer, world)
        learner.refresh_sampler()
        held = sum(p.to_local().numel() for p in learner.policy.parameters())
        kinds = {(p.dtype, isinstance(p, DTensor)) for p in learner.policy.parameters()}
        sampled = dict(learner.sampler.model.named_parameters())
        same = all(torch.equal(sampled[name], whole[name].bfloat16()) for name in whole)
        return held, sum(p.numel() for p in whole.values()), kinds, same

    for held, total, kinds, same in processes(2, look):
        assert held == pytest.approx(total / 2, rel=0.02)
        assert kinds == {(torch.float32, True)} and same


def test_gradients_are_summed_and_their_norm_is_that_of_all_shares(config):
    """Each process has the loss of its own row; a mean over processes would be half of this."""
    model, _ = load_model(config.model)
    rows = torch.arange(3, 19).view(2, 8)
    mask = torch.arange(8) > 2

    def gradients(policy, own) -> torch.Tensor:
        policy(rows[own], mask.expand(len(rows[own]), -1)).logp.sum().backward()
        return clip_gradients(policy, 1e-3)

    def shared() -> tuple:
        world = join_world(SHARDED)
        policy = world.place(Policy(load_model(config.model)[0]))
        norm = gradients(policy, slice(world.rank, world.rank + 1))
        return norm, {name: p.grad.full_tensor() for name, p in policy.named_parameters()}

    policy = Policy(model)
    norm = gradients(policy, slice(None))
    expected = {name: p.grad for name, p in policy.named_parameters()}
    for other_norm, found in processes(2, shared):
        assert other_norm.item() == pytest.approx(norm.item(), rel=1e-5)
        assert all((found[name] - expected[name]).abs().max() < 1e-7 for name in expected)


def test_an_update_in_bfloat16_is_near_the_one_in_float32(config):
    """Weights, gradients and optimizer stay in float32; layers compute in bfloat16.

    That keeps 8 bits of a number, so that a rounding is wrong by up to 0.4 %, and on a token's way
    through the layers and back there are dozens, of either sign: some per cent of the gradient's
    length. Adam's first step goes by the learning rate wherever the gradient points, so that only
    weights whose gradient is smaller than that error may move the other way.
    """
    documents = [([3, 4], list(range(5, 9 + 5 * i))) for i in range(1, 9)]
    settings = SupervisedConfig(steps=1, microbatch_tokens=64)

    def update(precision: str) -> tuple:
        world = join_world(Parallel(shard=True, precision=precision))
        model, tokenizer = load_model(config.model)
        policy = world.place(Policy(model))
        before = [p.detach().full_tensor().clone() for p in policy.parameters()]
        loss = add_gradient(settings, policy, documents, tokenizer, world, learn_prompts=True)
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


@pytest.mark.parametrize(
    ("death", "codes", "words"),
    [
        (ProcessRaisedException("lost connection", 0, 1), [1, -9], "worker 1 was killed by SIGKILL"),
        (ProcessExitedException("", 1, 1, -11, "SIGSEGV"), [-15, -11], "1 was killed by SIGSEGV"),
        (ProcessExitedException("", 0, 1, 3, None), [3, -15], "worker 0 ended unexpectedly"),
    ],
)
def test_the_worker_that_died_first_is_named_whoever_is_noticed_first(death, codes, words):
    assert words in str(_obituary(death, codes))


def test_a_fault_in_the_code_keeps_its_traceback():
    fault = ProcessRaisedException("Traceback", 0, 1)
    assert _obituary(fault, [1, -15]) is fault


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(first, then, config, alone, tmp_path):
    parallel = {1: Parallel(), 2: SHARDED}
    begun = replace(config, rollouts=2, parallel=parallel[first])
    run = trained(begun, tmp_path / "run", first)
    assert (list_checkpoints(run)[-1] / SHARDS).is_dir() is (first == 2)
    (run / "eval_final.npz").unlink()
    trained(replace(config, parallel=parallel[then]), run, then)
    assert_alike(run, alone, config)


def test_the_number_of_processes_may_change_on_resume_and_nothing_else(config, tmp_path):
    prepare_folder(tmp_path / "run", config, resume=False, overwrite=False)
    other = replace(config, processes=2, parallel=SHARDED)
    (tmp_path / "run/metrics.jsonl").touch()
    prepare_folder(tmp_path / "run", other, resume=True, overwrite=False)
    with pytest.raises(InputError, match="other settings .pack."):
        prepare_folder(tmp_path / "run", replace(config, pack=True), resume=True, overwrite=False)


def test_processes_with_other_data_are_refused(config, tmp_path):
    def work() -> int:
        own = replace(config, seed=int(os.environ["RANK"]), parallel=SHARDED)
        return grpo_worker(own, tmp_path)

    for error in processes(2, work):
        assert isinstance(error, InputError)
        assert "settings of process 1 differ from those of process 0" in str(error)


def test_a_full_disk_ends_the_run_on_every_process(config, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fsdp, "finish_checkpoint", full)
    for error in processes(2, grpo_worker, replace(config, parallel=SHARDED), tmp_path):
        assert isinstance(error, InputError) and "No space left" in str(error)
    assert list_checkpoints(tmp_path) == []


def die_in_the_fourth_update(config: GRPOConfig, run: Path) -> int:
    honest = Learner.update

    def update(self, *args):
        if self.step == 3 and self.world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(self, *args)

    Learner.update = update
    return grpo_worker(config, run)


def test_a_worker_killed_in_mid_step_is_named_and_the_run_goes_on(config, alone, tmp_path):
    sharded = replace(config, parallel=SHARDED)
    started = time.monotonic()
    with pytest.raises(InputError, match="worker 1 was killed by SIGKILL.*--resume"):
        run_workers(die_in_the_fourth_update, 2, sharded, tmp_path)
    assert time.monotonic() - started < 300
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002"]
    trained(sharded, tmp_path, 2)
    assert_alike(tmp_path, alone, config)


def test_a_damaged_share_is_named(config, two, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(two, run)
    for share in (list_checkpoints(run)[-1] / SHARDS).glob("*.distcp"):
        share.unlink()
    (error,) = processes(1, grpo_worker, replace(config, rollouts=4), run)
    assert isinstance(error, InputError) and "missing or damaged; delete this checkpoint" in str(error)


def test_settings_of_sharding_without_sharding_are_refused():
    with pytest.raises(InputError, match="set shard as well"):
        Parallel(precision="bfloat16")
