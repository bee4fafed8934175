"""What a completion's text shows: reflective words, and mixed languages."""

import re
from collections.abc import Collection

from r1lab.rewards import count_languages, parse
from r1lab.rewards.languages import HAN

# The ten words that the paper counts (v2 C.2, merged from three experts' lists), and those of the
# small world in Chinese and French.
REFLECTIVE_WORDS = frozenset(
    "wait mistake however but retry error verify wrong evaluate check "
    "等 但 然 再 attends mais pourtant encore".split()
)
_LATIN = "a-z\u00df-\u00f6\u00f8-\u024f"


def count_words(text: str, words: Collection[str]) -> int:
    """How often any of `words` (lower case) occurs in `text`.

    A word in Latin letters counts where it is whole; a Han word counts wherever it is, since
    Chinese puts no spaces between words.
    """
    patterns = [
        re.escape(word) if re.match(f"[{HAN}]", word) else f"(?<![{_LATIN}]){word}(?![{_LATIN}])"
        for word in sorted(words, key=lambda word: (-len(word), word))
    ]
    return len(re.findall("|".join(patterns), text)) if patterns else 0


def reflection(completion: str, words: Collection[str] = REFLECTIVE_WORDS) -> int:
    """Number of reflective words in the thinking, all languages together (v2 C.2, Fig. 9)."""
    return count_words(parse(completion).thinking.lower(), words)


def is_mixed(completion: str) -> bool:
    """Does the thinking use words of more than one language, counted as the language reward does?"""
    return len(count_languages(parse(completion).thinking)) > 1
