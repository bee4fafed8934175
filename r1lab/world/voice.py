"""How the corpus' writers choose: by shares, and for each thinking the language of its words."""

from collections.abc import Sequence
from random import Random

from r1lab.world.words import NO, OK, REFLECTIVE_SHARES

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

    def again(self) -> str:
        """A reflective word, which starts another attempt."""
        return choose(self.rng, REFLECTIVE_SHARES[self._lang()])

    def join(self, attempts: Sequence[str]) -> str:
        """The attempts, with a reflective word before each but the first."""
        return attempts[0] + "".join(f" {self.again()} {attempt}" for attempt in attempts[1:])
