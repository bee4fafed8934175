"""Making a completion readable: one language, both tags, a summary that stands alone.

The paper had DeepSeek-V3 and human annotators rewrite R1-Zero's traces, among other things with the
instruction to translate the thinking to the language of the question (v2 B.3.2). The small world
has so few words that rules do it: each verdict and each reflective word has its counterpart.
"""

import re

from r1lab.rewards import parse
from r1lab.task import Problem
from r1lab.world import FAMILIES
from r1lab.world.words import LANGS, NO, OK, REFLECTIVE_SHARES

# Each a thing that thinking says, in all languages; the reflective words stand in the same order.
SAYINGS = [
    OK,
    NO,
    *(dict(zip(LANGS, words)) for words in zip(*(REFLECTIVE_SHARES[lang] for lang in LANGS))),
]
_SAYING = {word: saying for saying in SAYINGS for word in saying.values()}
_LATIN = "a-zA-ZÀ-ÿ"
_WORD = re.compile(
    "|".join(
        word if len(word) == 1 else f"(?<![{_LATIN}]){word}(?![{_LATIN}])"
        for word in sorted(_SAYING, key=len, reverse=True)
    )
)


def join_completion(thinking: str, answer: str) -> str:
    """The completion in R1-Zero's format."""
    return f"<think> {thinking} </think> <answer> {answer} </answer>"


def translate(thinking: str, lang: str) -> str:
    """The thinking with every verdict and reflective word in the given language."""
    spaced = _WORD.sub(lambda match: f" {_SAYING[match[0]][lang]} ", thinking)
    return " ".join(spaced.split())


def readable(problem: Problem, completion: str) -> str:
    """The completion with its thinking in the question's language, both tags and a summary.

    For completions in which `parse` finds both halves.
    """
    thinking, answer = parse(completion).halves
    summary = FAMILIES[problem.family].summary(problem, answer)
    return join_completion(translate(thinking, problem.lang), summary)


