"""Ask a model one question and see a whole group: answers, rewards, advantages."""

import random
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.text import Text

from r1lab.errors import InputError
from r1lab.grpo import group_advantages
from r1lab.models.policy import Policy, load_model
from r1lab.rewards import RewardSet
from r1lab.sampling import SamplerName, SamplingParams, VLLMConfig, build_sampler
from r1lab.doors import load_task
from r1lab.sources.templates import prompt_of
from r1lab.task import Problem, Task, columns_of
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
    problem = random.Random(seed).choice(asked.test) if task else held_out(family, level, lang, seed)
    loaded, tokenizer = load_model(str(model))
    Policy(loaded)  # refuses what the sampler cannot score
    params = SamplingParams(n=group_size, temperature=temperature, max_tokens=max_tokens, seed=seed)
    drawing = build_sampler(sampler, loaded, tokenizer, vllm)
    prompt = prompt_of(asked, problem, tokenizer)
    drawn = drawing.generate([tokenizer(prompt).input_ids], params)
    print_group(asked, problem, prompt, drawn.texts(tokenizer), drawn.finish)


def held_out(family: str, level: int, lang: str, seed: int) -> Problem:
    """A held-out question of the small world. Raises InputError where there is no such family."""
    if family not in FAMILIES or level not in FAMILIES[family].levels:
        levels = {f.name: f"levels {f.levels[0]}-{f.levels[-1]}" for f in FAMILIES.values()}
        raise InputError(f"no {family} of level {level}; there are {levels}.")
    return sample_problem(random.Random(seed), family, level, lang, for_test=True)


def print_group(
    task: Task, problem: Problem, prompt: str, texts: list[str], finish: list[str]
) -> None:
    """The answers of a group, the best advantage first, each with its rewards."""
    group = len(texts)
    totals, parts = RewardSet.of(task.rewards)(
        prompts=[prompt] * group, completions=texts, **columns_of([problem] * group)
    )
    rewards = torch.tensor([[float("nan") if total is None else total for total in totals]])
    advantages = group_advantages(rewards)[0].tolist()
    console = Console()
    console.print(Text(f"{prompt}\n(a right answer: {problem.solution or 'not checkable'})"))
    for index in sorted(range(group), key=lambda i: -advantages[i]):
        scores = "  ".join(f"{name} {values[index]}" for name, values in parts.items())
        head = f"\nadvantage {advantages[index]:+.2f}  {scores}  {finish[index]}"
        console.print(Text(head, style="bold"))
        console.print(Text(texts[index]))
