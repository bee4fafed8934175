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
from r1lab.sampling import SamplerName, SamplingParams, VLLMConfig, build_sampler
from r1lab.sources.templates import apply_template
from r1lab.world import FAMILIES, sample_problem
from r1lab.training.config import GRPOConfig
from r1lab.training.run import rewards_of


def ask(
    model: tyro.conf.Positional[Path],
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
        model: a folder or Hub id.
        family: of the question: signs, countdown, sums ...
        level: its difficulty.
        lang: en, zh or fr.
        seed: another seed, another question.
        sampler: what draws the answers: this package, or vLLM where it is installed.
    """
    if family not in FAMILIES or level not in FAMILIES[family].levels:
        levels = {f.name: f"levels {f.levels[0]}-{f.levels[-1]}" for f in FAMILIES.values()}
        raise InputError(f"no {family} of level {level}; there are {levels}.")
    problem = sample_problem(random.Random(seed), family, level, lang, for_test=True)
    loaded, tokenizer = load_model(str(model))
    Policy(loaded)
    prompt = apply_template(template, problem.prompt, tokenizer)
    params = SamplingParams(
        n=group_size, temperature=temperature, max_tokens=max_tokens, seed=seed
    )
    drawing = build_sampler(sampler, loaded, tokenizer, vllm)
    drawn = drawing.generate([tokenizer(prompt).input_ids], params)
    texts = drawn.texts(tokenizer)
    columns = {
        name: [getattr(problem, name)] * group_size
        for name in ("solution", "family", "level", "lang", "meta", "tests")
    }
    reward = rewards_of(GRPOConfig())  # weighed as in training
    totals, parts = reward(prompts=[prompt] * group_size, completions=texts, **columns)
    rewards = torch.tensor([[float("nan") if total is None else total for total in totals]])
    advantages = group_advantages(rewards)[0].tolist()
    console = Console()
    console.print(Text(f"{prompt}\n(a right answer: {problem.solution or 'not checkable'})"))
    for index in sorted(range(group_size), key=lambda i: -advantages[i]):
        scores = "  ".join(f"{name} {values[index]}" for name, values in parts.items())
        head = f"\nadvantage {advantages[index]:+.2f}  {scores}  {drawn.finish[index]}"
        console.print(Text(head, style="bold"))
        console.print(Text(texts[index]))
