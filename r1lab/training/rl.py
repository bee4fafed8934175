"""Training by reinforcement learning, from a model and a task to a finished run."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

from r1lab.errors import InputError
from r1lab.evaluation.measure import Evaluation
from r1lab.objective import policy_loss
from r1lab.models.policy import Policy, load_model, load_tokenizer, refuse_unknown_words
from r1lab.rewards import RewardSet, validate
from r1lab.sources.templates import prompt_of
from r1lab.task import Task
from r1lab.training.checkpoint import checkpoint_path
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World, fingerprint
from r1lab.training.estimate import check_machine
from r1lab.training.loop import Learner
from r1lab.training.ppo import PPOLearner
from r1lab.training.processes import StopRequest, compute, default_processes
from r1lab.training.progress import Progress
from r1lab.training.provenance import command, commit, machine, peak_memory_gb
from r1lab.training.recorder import Recorder
from r1lab.run import Run

MakeLearner = Callable[..., Learner]  # (config, task, policy, tokenizer, world) -> Learner


def grpo(
    model: str | Path, task: Task, config: GRPOConfig | None = None, name: str = "run", *,
    runs: str | Path = "runs", resume: bool = True, overwrite: bool = False,
    stop_after: int | None = None, loss: Callable = policy_loss,
    learner: MakeLearner | None = None,
) -> Run:  # fmt: skip
    """Train a model on a task by reinforcement learning, in `runs/name`; returns the run.

    The same call goes on where a stopped or killed run has its last checkpoint, and gives back a
    finished one.

    Args:
        model: a folder, a Hub id or the folder of another run.
        resume: False refuses a run that is finished.
        overwrite: delete an earlier run of this name first.
        stop_after: train this number of rollouts and save, on a machine that is lent for a while.
        loss: another objective, with the signature of `objective.policy_loss`.
        learner: makes another kind of learner.
    Raises:
        InputError: anything that makes the run impossible, before any work is lost.
        KeyboardInterrupt: the user stopped it; the run is saved.
    """
    config = config or GRPOConfig()
    processes = config.processes or default_processes(config.questions)
    config.check(processes)
    check_machine(config, str(model))
    check_task(task, config, str(model))
    make = learner or functools.partial(default_learner, loss=loss)
    run = Run(Path(runs) / name)
    about = {"model": str(model), "task": described(task)}
    return compute(
        run, config, rl_work, processes, str(model), task, config, make, stop_after, about=about,
        resume=resume, overwrite=overwrite, parallel=config.parallel,
    )  # fmt: skip


def described(task: Task) -> dict:
    """What a run stores of its task: name, settings and fingerprint."""
    return {"name": task.name, "settings": dict(task.settings), "fingerprint": task.fingerprint()}


def check_task(task: Task, config: GRPOConfig, model: str) -> None:
    """Refuse a task that this model cannot be trained on, before it is loaded.

    Raises:
        InputError: there is no test problem, a reward or the check refuses a gold answer, or a
            question holds words that the model has no token for.
    """
    if not task.test:
        raise InputError(
            f"the task {task.name!r} has no test problems, so nothing would show whether the model "
            "learns; hold some back, for example with test=64."
        )
    validate(RewardSet(task.rewards), list(task.test), task.check)
    tokenizer = load_tokenizer(model)
    refuse_unknown_words(all_prompts(task, config, tokenizer), tokenizer, model)


def all_prompts(task: Task, config: GRPOConfig, tokenizer) -> list[str]:
    """What a run asks: of a task that draws its problems, the first rollout's, and the test's."""
    asked = task.problems
    if callable(asked):
        asked = task.draw(config.seed, 0, config.questions)
    return [prompt_of(task, problem, tokenizer) for problem in (*asked, *task.test)]


def refuse_long_questions(prompts: list[str], learner: Learner) -> None:
    """Refuse questions that leave no room for the longest answer in what the model reads."""
    cap = learner.config.cap(learner.config.steps)
    positions = getattr(learner.policy.model.config, "max_position_embeddings", None) or math.inf
    longest = max(prompts, key=lambda prompt: len(learner.tokenizer(prompt).input_ids))
    tokens = len(learner.tokenizer(longest).input_ids)
    if tokens + cap > positions:
        raise InputError(
            f"a question has {tokens} tokens ({longest[:60]!r} ...) and an answer may have {cap}, "
            f"but the model reads {positions}; leave out such questions, or lower caps."
        )


def rl_work(
    world: World, stop: StopRequest, run: Run, model: str, task: Task, config: GRPOConfig,
    make: MakeLearner, stop_after: int | None,
) -> bool:  # fmt: skip
    """One process's share of the run. False: stopped on the way."""
    if world.size > 1:  # each has read its own machine's files
        world.agree("settings", config)
        world.agree("problems, rewards or check of the task", task.fingerprint())
    learner, clock = open_learner(world, run, model, task, config, make)
    with Progress(config.steps, run.name, learner.step, enabled=world.is_main) as progress:
        recorder = Recorder(run, learner, clock, progress, stop, stop_after)
        if learner.step == 0:
            base = recorder.evaluate_all(run.folder / "eval_base.npz")
        else:
            base = Evaluation.load(run.folder / "eval_base.npz")
        recorder.start_rollout()
        if not recorder.finished:
            learner.train(recorder)
        if not recorder.finished:
            return recorder.rollouts_left <= 0
        final = recorder.evaluate_all(run.folder / "eval_final.npz")
    memory = sum(world.gather(peak_memory_gb()))
    recorder.stop_clock()
    if world.is_main:
        run.write("summary.json", summarize(run, learner, base, final, recorder.clock, memory))
    return True


def open_learner(
    world: World, run: Run, model: str, task: Task, config: GRPOConfig, make: MakeLearner
) -> tuple[Learner, dict[str, float]]:
    """The run's learner with its clock: from the last checkpoint, or else at the beginning."""
    checkpoints = run.checkpoints
    loaded, tokenizer = load_model(checkpoints[-1] if checkpoints else model)
    world.agree("starting weights", fingerprint(loaded))
    learner = make(config, task, Policy(loaded), tokenizer, world)
    refuse_long_questions(all_prompts(task, config, tokenizer), learner)
    if not checkpoints:
        return learner, {"train_seconds": 0.0, "wall_seconds": 0.0}
    return learner, learner.restore(checkpoints[-1])["clock"]


def default_learner(
    config: GRPOConfig, task: Task, policy: Policy, tokenizer, world: World,
    loss: Callable = policy_loss,
) -> Learner:  # fmt: skip
    """GRPO's learner, or PPO's where a critic gives the advantages."""
    kind = {"group": Learner, "gae": PPOLearner}[config.advantage]
    return kind(config, task, policy, tokenizer, world, loss)


def summarize(
    run: Run, learner: Learner, base: Evaluation, final: Evaluation, clock: dict[str, float],
    memory: float,
) -> dict:  # fmt: skip
    """`summary.json` of a finished run; fractions lie between 0 and 1."""
    return {
        "name": run.name,
        "task": learner.task.name,
        "arm": learner.task.settings.get("arm", "true"),
        "seed": learner.config.seed,
        "steps": learner.step,
        "base": base.summary(),
        "final": final.summary(),
        "wall_seconds": round(clock["wall_seconds"], 1),
        "train_seconds": round(clock["train_seconds"], 1),
        "peak_memory_gb": round(memory, 2),
        "flops": clock.get("flops"),
        "checkpoint": str(checkpoint_path(run.folder, learner.step)),
        "command": command(),
        "commit": commit(),
        "machine": machine(),
    }
