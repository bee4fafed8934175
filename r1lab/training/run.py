"""A run of reinforcement learning from its settings to its summary: what every RL stage is."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from r1lab.errors import InputError
from r1lab.evaluation.measure import Evaluation
from r1lab.models.policy import Policy, load_model
from r1lab.rewards import RewardSet, reward_set, validate, with_preferences
from r1lab.rewards.preference import helpfulness, safety
from r1lab.task import held_out_ids
from r1lab.sources.hub import load_source
from r1lab.training.checkpoint import checkpoint_path, list_checkpoints
from r1lab.training.config import GRPOConfig
from r1lab.training.demonstrations import Demonstrations
from r1lab.training.distributed import (
    STOPPED,
    StopRequest,
    World,
    default_processes,
    fingerprint,
    first_process,
    join_world,
    run_workers,
    under_torchrun,
)
from r1lab.training.estimate import check_machine
from r1lab.training.loop import Learner
from r1lab.training.ppo import PPOLearner
from r1lab.training.record import Recorder, peak_memory_gb
from r1lab.training.runs import Progress, command, commit, machine, write_atomically

WITHOUT_EFFECT = ("processes", "parallel", "grading")  # who computes and when, not what: may change


def run_grpo(
    config: GRPOConfig, name: str, *, runs: Path = Path("runs"),
    resume: bool = False, overwrite: bool = False, stop_after: int | None = None,
) -> Path:  # fmt: skip
    """Train by reinforcement learning in `runs/name`, or go on there, and return the folder.

    A run that was stopped or killed goes on where its last checkpoint is, when its settings are
    the same; a finished one is left alone.

    Args:
        stop_after: train so many rollouts and save, for a machine that is lent for a while.
    Raises:
        InputError: anything that makes the run impossible, before any work is lost.
        KeyboardInterrupt: the user stopped it; the run is saved.
    """
    processes = config.processes or default_processes(config.questions)
    config.check(processes)
    check_machine(config, config.model)
    validate(rewards_of(replace(config, arm="true")), load_source(config.eval_file))
    Demonstrations(config, *load_model(config.model))
    run = runs / name
    prepare_folder(run, config, resume, overwrite)
    if (run / "summary.json").exists():
        return run
    launch(grpo_worker, processes, config, run, stop_after)
    return run


def launch(worker: Callable[..., int], processes: int, *args) -> None:
    """Run a stage's worker in its processes: those of torchrun, or fresh ones.

    Raises:
        InputError: a worker raised it, or died.
        KeyboardInterrupt: the user stopped it; the run is saved.
    """
    code = worker(*args) if under_torchrun() else run_workers(worker, processes, *args)
    if code == STOPPED:
        raise KeyboardInterrupt


def prepare_folder(run: Path, config: object, resume: bool, overwrite: bool) -> None:
    """Make the run's folder and its config.json; refuse what would lose an earlier run.

    Of several processes under torchrun, the first does it; the others wait for it to join them.

    Args:
        config: a dataclass of settings that JSON can hold, each with a default.
    Raises:
        InputError: the run is finished, or was started with other settings, or there is none to
            resume; or it is to be overwritten by several processes, which would lose each other.
    """
    if overwrite and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError(
            f"--overwrite deletes what other processes look for; remove {run} by hand, or give "
            "--name for another run."
        )
    if not first_process():
        return
    settings = json.loads(json.dumps(asdict(config)))
    stored_at = run / "config.json"
    if overwrite and run.exists():
        shutil.rmtree(run)
    if resume and not stored_at.exists():
        raise InputError(f"{run}: there is no run to resume; start it without --resume.")
    if not stored_at.exists() or list(run.iterdir()) == [stored_at]:
        # New, or nothing has come of it: it was refused after its settings were stored.
        run.mkdir(parents=True, exist_ok=True)
        write_atomically(stored_at, json.dumps(settings, indent=1))
        return
    try:
        stored = json.loads(stored_at.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{stored_at} is damaged ({error}); restore it, or give --overwrite to begin again."
        ) from error
    if (run / "summary.json").exists() and not resume:
        raise InputError(
            f"{run} is finished; give --name for another run, or --overwrite to do it again."
        )
    given = asdict(type(config)()) | stored  # a setting that came later had its default's effect
    same = {key: settings[key] for key in WITHOUT_EFFECT if key in settings}
    given = json.loads(json.dumps(given)) | same
    different = [key for key in given if settings.get(key) != given[key]]
    if different:
        raise InputError(
            f"{run} was started with other settings ({', '.join(different)}); resume it with the "
            "same ones, or give --name for another run."
        )


def grpo_worker(config: GRPOConfig, run: Path, stop_after: int | None = None) -> int:
    """One process of the run. Its exit code: 0, or 130 when the user stopped it."""
    stop = StopRequest().listen()
    world = join_world(config.parallel)
    test_set = load_source(config.eval_file)
    if world.size > 1:  # each has read its own machine's files
        world.agree("settings", config)
        pool = load_source(config.data) if config.data else []
        world.agree("training problems", (pool, sorted(held_out_ids())))
        world.agree("problems of eval_file", test_set)
    learner, clock = open_learner(config, run, world)
    rewards = rewards_of(config)
    with Progress(config.steps, run.name, learner.step, enabled=world.is_main) as progress:
        recorder = Recorder(
            run, learner, test_set, rewards, clock, progress, stop, stop_after
        )
        if learner.step == 0:
            base = recorder.evaluate_all(run / "eval_base.npz")
        else:
            base = Evaluation.load(run / "eval_base.npz")
        held_out = held_out_ids() | {problem.id for problem in test_set}
        recorder.start_rollout()
        if not recorder.finished:
            learner.train(
                lambda rollout: config.problems(rollout, exclude=held_out), rewards, recorder
            )
        if not recorder.finished:
            return 0 if recorder.rollouts_left <= 0 else STOPPED
        final = recorder.evaluate_all(run / "eval_final.npz")
    memory = sum(world.gather(peak_memory_gb()))
    recorder.clock["wall_seconds"] += time.monotonic() - recorder.started
    if world.is_main:
        summary = summarize(config, run, learner.step, base, final, recorder.clock, memory)
        write_atomically(run / "summary.json", json.dumps(summary, indent=1))
    return 0


def open_learner(config: GRPOConfig, run: Path, world: World) -> tuple[Learner, dict[str, float]]:
    """The run's learner with its clock: from the last checkpoint, or else at the beginning."""
    checkpoints = list_checkpoints(run)
    model, tokenizer = load_model(checkpoints[-1] if checkpoints else config.model)
    world.agree("starting weights", fingerprint(model))
    kind = {"group": Learner, "gae": PPOLearner}[config.advantage]
    learner = kind(config, Policy(model), tokenizer, world)
    if not checkpoints:
        return learner, {"train_seconds": 0.0, "wall_seconds": 0.0}
    return learner, learner.restore(checkpoints[-1])["clock"]


def rewards_of(config: GRPOConfig) -> RewardSet:
    """The rewards that a run's settings ask for."""
    rules = reward_set(
        config.arm, config.accuracy_weight, config.format_weight, config.seed,
        config.language_weight,
    )  # fmt: skip
    if not config.reward_models:
        return rules
    folder, first = Path(config.reward_models), config.preference_from // config.minibatches
    models = {"helpfulness": helpfulness(folder / "helpfulness"), "safety": safety(folder / "safety")}
    return with_preferences(rules, models, config.preference_weight, first)


def summarize(
    config: GRPOConfig, run: Path, step: int, base: Evaluation, final: Evaluation,
    clock: dict[str, float], memory: float,
) -> dict:  # fmt: skip
    """`summary.json` of a finished run; fractions lie between 0 and 1."""
    return {
        "name": run.name,
        "arm": config.arm,
        "seed": config.seed,
        "steps": step,
        "base": base.summary(),
        "final": final.summary(),
        "wall_seconds": round(clock["wall_seconds"], 1),
        "train_seconds": round(clock["train_seconds"], 1),
        "peak_memory_gb": round(memory, 2),
        "flops": clock.get("flops"),
        "checkpoint": str(checkpoint_path(run, step)),
        "command": command(),
        "commit": commit(),
        "machine": machine(),
    }
