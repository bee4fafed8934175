"""What a notebook needs: `r1lab.grpo`, `sft`, `evaluate`, `sample` and `Run`; and `r1lab sample`."""

import os
import random
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import tyro
from rich.console import Console

from r1lab import run
from r1lab.errors import InputError
from r1lab.evaluation import measure
from r1lab.evaluation.measure import Evaluation
from r1lab.models.policy import refuse_unknown_words
from r1lab.objective import group_advantages
from r1lab.report.answers import SHOWN, Answer, Answers, answer_of, attempts_of
from r1lab.report.export import export, push
from r1lab.report.figures import draw
from r1lab.report.pages import embedded, write_report
from r1lab.rewards import RewardSet
from r1lab.sampling import SamplerName, SamplingParams, VLLMConfig
from r1lab.sources import load_task
from r1lab.sources.templates import prompt_of
from r1lab.stages.rl_stages import stored_zero
from r1lab.task import Problem, Task, columns_of, gold_answer
from r1lab.training import rl, sft as supervised
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.estimate import open_model
from r1lab.training.processes import StopRequest, launch
from r1lab.world import family_and_level, sample_problem
from r1lab.world.small_world import SmallWorld


class Run(run.Run):
    """A run's folder, as a card in a notebook, and what can be done with it.

    Args:
        task: what was asked, where the folder alone cannot say it (a task of a notebook).
        way: its `loss` and `learner`, where they are your own.
    """

    def __init__(self, folder: str | Path, task: Task | None = None, **way):
        super().__init__(folder)
        self._task, self._way = task, way

    @property
    def task(self) -> Task:
        """What is asked and paid. Raises InputError where only a notebook knows it."""
        return self._task or stored_zero(self).open_task()

    def resume(self) -> "Run":
        """Continue where the run was stopped. Returns it finished."""
        return self._train(0)

    def extend(self, rollouts: int) -> "Run":
        """Train a finished run for more rollouts, from its last checkpoint on."""
        return self._train(rollouts)

    export, push = export, push  # for others: as a folder, and to the Hub

    def _train(self, more):
        if "group_size" not in self.config:
            raise InputError(f"{self.folder} is no run of RL; the call that started it goes on with it.")
        config, folder = GRPOConfig.of_run(self.config), self.folder.resolve()
        config = replace(config, rollouts=config.rollouts + more)
        rl.grpo(self.config["model"], self.task, config, folder.name, runs=folder.parent, **self._way)
        return self

    def report(self) -> Path:
        """Write `report.html` into the folder, and return its path."""
        return write_report(self.folder)

    def _repr_html_(self):
        """A card: where it lies, how far it is, the curve, and what it last wrote."""
        attempts = self._task.attempts if self._task else attempts_of(self)
        figure = self.metrics and draw("accuracy", self.metrics, self.config)
        shown = [Answers(row["prompt"], [answer_of(row, attempts)]) for row in self.samples[-3:]]
        return SHOWN.style() + SHOWN.card(self, figure and embedded(figure, ""), shown)


@wraps(rl.grpo)
def grpo(model: str | Path, task: Task, *args, **options) -> Run:
    way = {name: options[name] for name in ("loss", "learner") if name in options}
    return Run(rl.grpo(model, task, *args, **options).folder, task, **way)


@wraps(supervised.sft)
def sft(*args, **options) -> Run:
    return Run(supervised.sft(*args, **options).folder)


def evaluate(
    model: str | Path, task: Task, k: int = 16, *, temperature: float = 1.0, top_p: float = 1.0,
    max_tokens: int | None = None, seed: int = 0, processes: int = 0,
) -> Evaluation:  # fmt: skip
    """Ask a model the task's test problems k times each, and judge by the task's check.

    Args:
        max_tokens: of an answer; by default 1,024, or what the model's context leaves.
        processes: 0 for one per core (or per GPU).
    """
    sampling = {"k": k, "temperature": temperature, "top_p": top_p, "seed": seed}
    with TemporaryDirectory() as folder:
        launch(
            evaluate_work, processes, run.Run(folder), str(model), task, sampling, max_tokens,
            saves=False,
        )  # fmt: skip
        return Evaluation.load(Path(folder, f"{os.environ.get('RANK', 0)}.npz"))


def evaluate_work(
    world: World, stop: StopRequest, folder: run.Run, model: str, task: Task, sampling: dict,
    max_tokens: int | None,
) -> bool:  # fmt: skip
    """One process's share of `evaluate`; each writes the whole, since torchrun's share no folder."""
    sampler, tokenizer, positions = open_model(model)
    asked = [(len(tokenizer(prompt_of(task, p, tokenizer)).input_ids), p.id) for p in task.test]
    longest, name = max(asked, default=(0, ""))
    room = positions - longest
    if room < (max_tokens or 1):
        raise InputError(
            f"question {name} has {longest} tokens, which leaves room for {room} more; ask it of another "
            "model, leave it out, or lower max_tokens."
        )
    evaluation = measure.evaluate(
        sampler, tokenizer, task, max_tokens=max_tokens or min(1_024, room), world=world, **sampling
    )
    evaluation.save(folder.folder / f"{world.rank}.npz")
    return True


@dataclass(frozen=True)
class Group(Answers):
    """The completions of one question, with their rewards and advantages, as a person sees them."""

    problem: Problem
    rewards: dict[str, list[float | None]]

    @property
    def completions(self) -> list[str]:
        return [answer.completion for answer in self.answers]

    @property
    def advantages(self) -> list[float]:
        return [answer.advantage for answer in self.answers]


def sample(
    model: str | Path, task: Task, problem: Problem | None = None, n: int = 8, *,
    max_tokens: int = 448, temperature: float = 1.0, seed: int = 0, sampler: SamplerName = "torch",
    vllm: VLLMConfig = VLLMConfig(),
) -> Group:  # fmt: skip
    """Ask a model one question of a task's test set n times, and see the group as GRPO sees it.

    Args:
        problem: the question; by default the one at place `seed` of the test set.
        sampler, vllm: what draws the answers, see `training.estimate.open_model`.
    """
    problem = problem or task.test[seed % len(task.test)]
    drawing, tokenizer, _ = open_model(model, sampler, vllm, max_tokens)
    prompt = prompt_of(task, problem, tokenizer)
    refuse_unknown_words([prompt], tokenizer, model)
    params = SamplingParams(n=n, temperature=temperature, max_tokens=max_tokens, seed=seed)
    drawn = drawing.generate([tokenizer(prompt).input_ids], params)
    texts = drawn.texts(tokenizer)
    totals, parts = RewardSet(task.rewards)(
        prompts=[prompt] * n, completions=texts, **columns_of([problem] * n)
    )
    scores = torch.tensor([[float("nan") if total is None else total for total in totals]])
    advantages = group_advantages(scores)[0].tolist()
    answers = [
        Answer(
            text, task.attempts(problem, text) if task.attempts else (),
            {name: paid[row] for name, paid in parts.items()}, advantages[row], drawn.finish[row],
        )
        for row, text in enumerate(texts)
    ]  # fmt: skip
    gold = gold_answer(problem) or "not checkable"
    return Group(f"{problem.prompt}\n(a right answer: {gold})", answers, problem, parts)


def ask(
    model: tyro.conf.Positional[Path],
    prompt: str = "",
    task: str = "",
    family: str = "signs",
    level: int = 3,
    lang: str = "en",
    group_size: int = 8,
    max_tokens: int = 448,
    temperature: float = 1.0,
    template: str = "small",
    seed: int = 0,
    sampler: SamplerName = "torch",
    vllm: VLLMConfig = VLLMConfig(),
):
    """Ask a question, see the group's answers with rewards and advantages.

    Args:
        model: a folder, a run's folder or a Hub id.
        prompt: your own question, whose right answer nobody knows; else a held-out one is asked.
        task: asked in place of the small world, as my_task.py:task or gym:NAME.
        family: of the question: signs, countdown, sums ...
        level: its difficulty.
        lang: en, zh or fr.
        seed: another seed, another question.
        sampler: what draws the answers: this package, or vLLM where it is installed.
    """
    if task:
        asked, problem = load_task(task), None
    else:
        asked, names = SmallWorld(template=template).task(), family_and_level(f"{family}/{level}")
        problem = sample_problem(random.Random(seed), *names, lang, for_test=True)
    if prompt:
        problem = Problem("your own", "your own", 0, lang, prompt, "")
    group = sample(
        model, asked, problem, group_size, max_tokens=max_tokens, temperature=temperature, seed=seed,
        sampler=sampler, vllm=vllm,
    )  # fmt: skip
    Console().print(group)
