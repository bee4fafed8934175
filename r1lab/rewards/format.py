"""The format reward (paper, v2 section 2.2): thinking and answer between their tags."""

import re

from r1lab.rewards.accuracy import text_of

TAGS = re.compile(r"</?(?:think|answer)>")
ORDER = ["<think>", "</think>", "<answer>", "</answer>"]


def has_format(completion: str) -> bool:
    """Is this `<think>…</think> <answer>…</answer>`: each tag once, in this order, nothing but
    whitespace outside, the answer not empty?"""
    if TAGS.findall(completion) != ORDER:
        return False
    before, _, between, answer, after = TAGS.split(completion)
    return bool(answer.strip()) and not (before + between + after).strip()


def format_reward(prompts: list, completions: list, **columns: object) -> list[float | None]:
    """1.0 where `has_format`, else 0.0. TRL's signature."""
    return [float(has_format(text_of(completion))) for completion in completions]
