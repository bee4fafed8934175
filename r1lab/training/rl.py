"""Training by reinforcement learning, from a model and a task to a finished run."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from r1lab.errors import InputError
from r1lab.models.policy import Policy, load_start, load_tokenizer, refuse_unknown_words
from r1lab.objective import policy_loss
from r1lab.rewards import RewardSet, validate
from r1lab.run import Run
from r1lab.sources.templates import prompt_of
from r1lab.task import Problem, Task, source_of
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World, fingerprint, settled
from r1lab.training.estimate import check_machine
from r1lab.training.loop import Learner
from r1lab.training.processes import Progress, StopRequest, compute, default_processes
from r1lab.training.recorder import Recorder, tracking

MakeLearner = Callable[..., Learner]  # (config, task, policy, tokenizer, world, loss=...) -> Learner
NAMED = 5  # of the questions that are too long
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"  # of the work, not of the steps


def grpo(
    model: str | Path, task: Task, config: GRPOConfig = GRPOConfig(), name: str = "run", *,
    runs: str | Path = "runs", resume: bool = True, overwrite: bool = False,
    stop_after: int | None = None, loss: Callable = policy_loss,
    learner: MakeLearner = Learner,
) -> Run:  # fmt: skip
    """Train a model on a task by reinforcement learning, in `runs/name`; returns the run.

    The same call goes on where a stopped or killed run has its last checkpoint, and gives back a
    finished one. With more rollouts it trains a finished run longer.

    Args:
        model: a folder, a Hub id or the folder of another run.
        resume: False refuses a run that is finished.
        overwrite: delete an earlier run of this name first.
        stop_after: train this number of rollouts and save, on a machine that is lent for a while.
        loss: another objective, with the signature of `objective.policy_loss`.
        learner: makes another kind of learner, see `training.loop.Learner`.
    Raises:
        InputError: anything that makes the run impossible, before any work is lost.
        KeyboardInterrupt: the user stopped it; the run is saved.
    """
    model = str(model)
    processes = config.processes or default_processes(config.questions)
    config.check(processes)
    check_machine(config, model)
    config = settled(config)
    check_task(task, config, model)
    return compute(
        Run(Path(runs) / name), config, rl_work, processes, model, task, config,
        functools.partial(learner, loss=loss), stop_after,
        about={
            "model": model, "task": described(task), "objective": source_of(loss),
            "learner": source_of(learner),
        },
        resume=resume, overwrite=overwrite,
    )  # fmt: skip


def described(task: Task) -> dict:
    """What a run stores of its task: name, settings and fingerprint."""
    return {"name": task.name, "settings": dict(task.settings), "fingerprint": task.fingerprint()}


def check_task(task: Task, config: GRPOConfig, model: str):
    """Refuse a task that this model cannot be trained on, before it is loaded.

    Raises:
        InputError: there is no test problem or no other one, or no reward; one or the check refuses a gold
            answer, or a question holds words that the model has no token for.
    """
    if not task.test:
        raise InputError(
            f"the task {task.name!r} has no test problems, so nothing would show whether the model "
            "learns; hold some back, for example with test=64."
        )
    if not (task.rewards and isinstance(task.rewards, Mapping)):
        raise InputError(f"the task {task.name!r} pays for nothing: give rewards by name, as {{'mine': function}}.")
    validate(RewardSet(task.rewards), list(task.test), task.check)
    tokenizer = load_tokenizer(model)
    prompts = [prompt_of(task, problem, tokenizer) for problem in all_questions(task, config)]
    refuse_unknown_words(prompts, tokenizer, model)


def all_questions(task: Task, config: GRPOConfig) -> list[Problem]:
    """What a run asks: of a task that draws its problems, the first rollout's, and the test's.

    Raises InputError where the task has nothing to ask in training."""
    asked = task.draw(config.seed, 0, config.questions)
    return [*(asked if callable(task.problems) else task.problems), *task.test]


def fitting(task: Task, config: GRPOConfig, tokenizer, positions: int | float) -> tuple[Task, str]:
    """Leave out questions without room for the longest answer in what the model reads.

    Returns the task that is left, and a sentence that counts and names what is left out ("" where
    all fit). Raises InputError with this sentence where `config.overlong` is "refuse".
    """
    room = positions - config.cap(config.steps)

    def tokens(problem):
        return len(tokenizer(prompt_of(task, problem, tokenizer)).input_ids)

    def fit(problems):
        return [problem for problem in problems if tokens(problem) <= room]

    def draw(seed, rollout, count):
        return fit(task.problems(seed, rollout, 2 * count))[:count]

    asked = all_questions(task, config)
    said = ""
    if long := [problem for problem in asked if tokens(problem) > room]:
        named = ", ".join(f"{problem.id} has {tokens(problem)} tokens" for problem in long[:NAMED])
        said = (
            f"{len(long)} of {len(asked)} questions leave no room for an answer in the {positions} tokens "
            f"that the model reads, as an answer may have {positions - room}: {named}"
        )
    if config.overlong == "skip":
        left = draw if callable(task.problems) else fit(task.problems)
        return replace(task, problems=left, test=fit(task.test)), said
    if long:
        raise InputError(f"{said}; lower caps, or leave these out with --overlong skip.")
    return task, said


def rl_work(
    world: World, stop: StopRequest, run: Run, model: str, task: Task, config: GRPOConfig,
    make: MakeLearner = Learner, stop_after: int | None = None,
) -> bool:  # fmt: skip
    """One process's share of the run, from its last checkpoint on. False: stopped on the way."""
    # Each process has read its own machine's files.
    world.agree("settings", config)
    world.agree("problems, rewards or check of the task", task.fingerprint())
    last = next(reversed(run.checkpoints), None)
    loaded, tokenizer = load_start(model, config.lora, config.seed, last)
    world.agree("starting weights", fingerprint(loaded))
    positions = getattr(loaded.config, "max_position_embeddings", None) or math.inf
    task, left_out = fitting(task, config, tokenizer, positions)
    if left_out and world.is_main:
        print(f"Left out: {left_out}.")
    learner = make(config, task, Policy(loaded), tokenizer, world)
    clock = learner.restore(last)["clock"] if last else {}
    with (
        Progress(1, run.name, bar_format=BAR) as progress,
        tracking(config.track if world.is_main else "", run) as track,
    ):
        recorder = Recorder(run, learner, clock, progress, stop, stop_after, track)
        tested = task.test, config.final_samples
        if learner.step == 0:
            recorder.evaluate("eval_base.npz", *tested)
        if not recorder.finished:
            learner.train(recorder)
        if not recorder.finished:
            return recorder.rollouts_left <= 0
        recorder.evaluate("eval_final.npz", *tested)
        progress.update(progress.total - progress.n)
    recorder.summarize()
    return True
