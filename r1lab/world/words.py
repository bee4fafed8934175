"""What is said in the small world (`words.toml`), by language and by what it does, and who chooses."""

import re
from collections.abc import Sequence
from random import Random

from r1lab.files import read_toml

SAID = read_toml(__file__, "words")
OK, NO, REFLECTIVE_SHARES = SAID["ok"], SAID["no"], SAID["reflective"]
LANGS = tuple(OK)
REFLECTIVE = {lang: frozenset(shares) for lang, shares in REFLECTIVE_SHARES.items()}
# The words that thinking is made of; what language a completion is in is read from these.
WORDS_BY_LANG = {lang: frozenset({OK[lang], NO[lang]}) | REFLECTIVE[lang] for lang in LANGS}
OTHER_WORDS = " ".join(SAID["words"].values()).split()
NAMES, TOPICS, CHAT_WORDS, UNSAFE_TOPICS = (
    SAID["words"][kind].split() for kind in ("names", "topics", "chat", "unsafe")
)

# What thinking says, in all languages; the reflective words are in the same order in each.
SAYINGS = (OK, NO, *(dict(zip(LANGS, words)) for words in zip(*REFLECTIVE_SHARES.values())))
_SAYING = {word: saying for saying in SAYINGS for word in saying.values()}
# Longer words first; a word of Latin letters only where it is whole.
_WORD = re.compile(
    "|".join(
        word if len(word) == 1 else rf"(?<![a-zA-ZÀ-ÿ]){word}(?![a-zA-ZÀ-ÿ])"
        for word in sorted(_SAYING, key=len, reverse=True)
    )
)


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

    def _lang(self) -> str:
        return self.other if self.rng.random() < self.swap else self.lang

    def verdict(self, right: bool) -> str:
        return (OK if right else NO)[self._lang()]

    def join(self, attempts: Sequence[str]) -> str:
        """Join the attempts, with a reflective word before each but the first."""
        text = attempts[0]
        for attempt in attempts[1:]:
            text += f" {choose(self.rng, REFLECTIVE_SHARES[self._lang()])} {attempt}"
        return text
