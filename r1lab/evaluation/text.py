"""What a completion's text shows: reflection, languages, attempts that repeat or go in order."""

import re
from collections.abc import Collection, Hashable, Mapping, Sequence

from r1lab.rewards.language import HAN, count_languages, thinking
from r1lab.world.words import REFLECTIVE

# The ten words that the paper counts (v2 C.2, merged from three experts' lists), and this world's.
PAPER_WORDS = "wait mistake however but retry error verify wrong evaluate check".split()
REFLECTIVE_WORDS = {**REFLECTIVE, "en": REFLECTIVE["en"] | set(PAPER_WORDS)}

_LATIN = "a-z\u00df-\u00f6\u00f8-\u024f"


def count_words(text: str, words: Collection[str]) -> int:
    """How often any of `words` (lower case) occurs in `text`.

    A word in Latin letters counts where it stands whole; a Han word counts wherever it stands,
    since Chinese puts no spaces between words.
    """
    patterns = [
        re.escape(word) if re.match(f"[{HAN}]", word) else f"(?<![{_LATIN}]){word}(?![{_LATIN}])"
        for word in sorted(words, key=lambda word: (-len(word), word))
    ]
    return len(re.findall("|".join(patterns), text)) if patterns else 0


def reflection(completion: str, words: Mapping[str, Collection[str]] = REFLECTIVE_WORDS) -> int:
    """Number of reflective words in the thinking, all languages together (v2 C.2, Fig. 9)."""
    return count_words(thinking(completion), frozenset().union(*words.values()))


def is_mixed(completion: str) -> bool:
    """Does the thinking use words of more than one language, counted as the language reward does?"""
    return len(count_languages(thinking(completion))) > 1


def count_repeats(attempts: Sequence[Hashable]) -> int:
    """How many attempts were made before in the same completion."""
    return len(attempts) - len(set(attempts))


def is_in_order(signs: Sequence[Sequence[int]]) -> bool:
    """Is each sequence of signs the next one after its predecessor in binary counting?

    Plus (1) counts as digit 0 and minus (-1) as digit 1, the last sign changing fastest. True of
    fewer than two sequences, which callers therefore leave out of a share.
    """
    ranks = [
        (len(s), sum((sign < 0) << place for place, sign in enumerate(reversed(s)))) for s in signs
    ]
    return all((length, rank + 1) == after for (length, rank), after in zip(ranks, ranks[1:]))
