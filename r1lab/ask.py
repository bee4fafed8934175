"""`r1lab sample`: ask a model one question and see a whole group."""

import random
from pathlib import Path

import tyro
from rich.console import Console
from rich.text import Text

from r1lab.api import Group, sample
from r1lab.errors import InputError
from r1lab.sampling import SamplerName, VLLMConfig
from r1lab.doors import load_task
from r1lab.task import Problem
from r1lab.world import FAMILIES, sample_problem
from r1lab.world.small_world import SmallWorld


def ask(
    model: tyro.conf.Positional[Path],
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
) -> None:
    """Ask a held-out question, see the group's answers with rewards and advantages.

    Args:
        model: a folder, a run's folder or a Hub id.
        task: asked in place of the small world, as my_task.py:task or gym:NAME.
        family: of the question: signs, countdown, sums ...
        level: its difficulty.
        lang: en, zh or fr.
        seed: another seed, another question.
        sampler: what draws the answers: this package, or vLLM where it is installed.
    """
    asked = load_task(task) if task else SmallWorld(template=template).task()
    problem = None if task else held_out(family, level, lang, seed)
    group = sample(
        model, asked, problem, group_size, max_tokens=max_tokens, temperature=temperature, seed=seed,
        name=sampler, vllm=vllm,
    )  # fmt: skip
    print_group(group)


def held_out(family: str, level: int, lang: str, seed: int) -> Problem:
    """A held-out question of the small world. Raises InputError where there is no such family."""
    if family not in FAMILIES or level not in FAMILIES[family].levels:
        levels = {f.name: f"levels {f.levels[0]}-{f.levels[-1]}" for f in FAMILIES.values()}
        raise InputError(f"no {family} of level {level}; there are {levels}.")
    return sample_problem(random.Random(seed), family, level, lang, for_test=True)


def print_group(group: Group) -> None:
    """The answers, the best advantage first, each with its rewards."""
    console = Console()
    gold = group.problem.solution or "not checkable"
    console.print(Text(f"{group.prompt}\n(a right answer: {gold})"))
    for row, completion in enumerate(group.completions):
        scores = "  ".join(f"{name} {values[row]}" for name, values in group.rewards.items())
        head = f"\nadvantage {group.advantages[row]:+.2f}  {scores}  {group.finish[row]}"
        console.print(Text(head, style="bold"))
        console.print(Text(completion))
