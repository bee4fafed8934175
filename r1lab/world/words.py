"""What is said in the small world (`words.toml`), by language and by what it does, and who chooses.

A family is one kind of problem, with all that anybody may ask about it.
"""

import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from r1lab.files import read_toml
from r1lab.task import Problem, problem_id

SAID = read_toml(__file__, "words")
OK, NO, REFLECTIVE_SHARES = SAID["ok"], SAID["no"], SAID["reflective"]
LANGS = tuple(OK)
REFLECTIVE = {lang: frozenset(shares) for lang, shares in REFLECTIVE_SHARES.items()}
# The words that thinking is made of; what language a completion is in is read from these.
WORDS_BY_LANG = {lang: frozenset({OK[lang], NO[lang]}) | REFLECTIVE[lang] for lang in LANGS}
OTHER_WORDS = " ".join(SAID["words"].values()).split()
KINDS = ("names", "topics", "chat", "unsafe")
NAMES, TOPICS, CHAT_WORDS, UNSAFE_TOPICS = (SAID["words"][kind].split() for kind in KINDS)

# What thinking says, in all languages; the reflective words are in the same order in each.
SAYINGS = (OK, NO, *(dict(zip(LANGS, words)) for words in zip(*REFLECTIVE_SHARES.values())))
_SAYING = {word: saying for saying in SAYINGS for word in saying.values()}
# Longer words first; a word of Latin letters only where it is whole.
_LONGEST = sorted(_SAYING, key=len, reverse=True)
_WHOLE = (word if len(word) == 1 else rf"(?<![a-zA-ZÀ-ÿ]){word}(?![a-zA-ZÀ-ÿ])" for word in _LONGEST)
_WORD = re.compile("|".join(_WHOLE))


def translate(thinking: str, lang: str) -> str:
    """Say every verdict and reflective word of the thinking in the given language."""
    spaced = _WORD.sub(lambda match: f" {_SAYING[match[0]][lang]} ", thinking)
    return " ".join(spaced.split())


Shares = dict  # outcome -> weight


def choose(rng: Random, shares: Shares):
    return rng.choices(list(shares), list(shares.values()))[0]


class Voice:
    """Chooses the words of one thinking: its language, and whether it mixes in another."""

    def __init__(self, rng: Random, config, lang: str):
        self.rng = rng
        others = [other for other in ("en", "zh") if other != lang]
        self.lang = rng.choice(others) if rng.random() < config.foreign_thinking[lang] else lang
        self.other = "en" if self.lang != "en" else "zh"
        self.swap = config.swap if rng.random() < config.mixed_thinking else 0.0

    def _lang(self):
        return self.other if self.rng.random() < self.swap else self.lang

    def verdict(self, right: bool) -> str:
        return (OK if right else NO)[self._lang()]

    def join(self, attempts: Sequence[str]) -> str:
        """Join the attempts, with a reflective word before each but the first."""
        text = attempts[0]
        for attempt in attempts[1:]:
            text += f" {choose(self.rng, REFLECTIVE_SHARES[self._lang()])} {attempt}"
        return text


class Puzzle(NamedTuple):
    """What a family draws, before it is asked in a language.

    Attributes:
        key: decides the problem's id; the same in every language.
        slots: what fills the question's template.
        solution, meta, tests: as in `Problem`.
    """

    key: str
    slots: dict[str, object]
    solution: str
    meta: dict = {}
    tests: list | None = None


class Family:
    """One kind of problem: how it is drawn, asked, and solved in the corpus.

    Each has `puzzle(rng, level)`, which draws a `Puzzle`, and, where the corpus has the family,
    `write(rng, config, problem)`: (thinking, answer) as one of its writers, of a `CorpusConfig`, does.

    Attributes:
        levels: of difficulty, from 1.
    """

    name: str
    levels: Sequence[int] = (1,)

    @property
    def questions(self) -> dict[str, str]:
        """Give, by language, the templates with the puzzle's slots."""
        return SAID["questions"].get(self.name, {"en": "{prompt}"})

    def draw(self, rng: Random, level: int, lang: str) -> Problem:
        """Draw a problem in the language, or in English where the family has no other."""
        puzzle = self.puzzle(rng, level)
        lang = lang if lang in self.questions else "en"
        return Problem(
            id=problem_id(self.name, puzzle.key), family=self.name, level=level, lang=lang,
            prompt=self.questions[lang].format(**puzzle.slots), solution=puzzle.solution,
            tests=puzzle.tests, meta=puzzle.meta
        )  # fmt: skip

    def summary(self, problem: Problem, answer: str) -> str:
        """Give what a reader is shown in place of the bare answer."""
        return answer
