"""One spelling for each thing: answers are tidied by the named rules of `spelling.toml` before they
are compared, and numbers and units are read in whatever notation they come. The rules of
`phrases.toml` take the words around an answer away."""

import re
from fractions import Fraction

from r1lab.files import read_toml

TABLE = read_toml(__file__, "spelling") | read_toml(__file__, "phrases")
SIGNS = {0xFF01 + i: 0x21 + i for i in range(94)}  # full-width forms, as in Chinese text
SIGNS |= str.maketrans(TABLE["signs"])

UNIT = (
    r"(?:(?:\s(?:[A-Za-z]{3,}|of|(?:an?|in|on|by|to)(?=\s[A-Za-z]{3}))|\s*[°%¤€£]|(?:\s|(?<![A-Za-z\\]))"
    r"(?:cm|km|mm|kg|gm|mg|ml|ft|in|sq\.?|hr|cents?|mi|yd|lb|oz)(?![A-Za-z]))(?:\s*\^\s*[23])?)+$"
)
# A sign, then a whole number, fraction or mixed number, or a decimal with or without an exponent.
NUMBER = (r"(-?)((?:[0-9]+\s+)?[0-9]+/0*[1-9][0-9]*|"
          r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]{1,3})?)")

FILLERS = set(TABLE["words"]["fillers"].split())


def rewrite(text: str, part: str) -> str:
    """Apply each rule of a part of the table once."""
    for rule in TABLE[part]:
        text = re.sub(rule["find"], rule["new"], text)
    return text


def settle(text: str, part: str) -> str:
    """Apply the rules of a part of the table until they change nothing."""
    before = None
    while text != before:
        before, text = text, rewrite(text, part)
    return text


def tidy(text: str) -> str:
    """Give each sign one spelling, without delimiters, lead-ins and closing punctuation."""
    text = rewrite(rewrite(rewrite(text, "digits").translate(SIGNS), "boxes"), "spelling")
    if text.count("$") % 2:  # a dollar amount, not a pair of delimiters
        text = re.sub(r"\$(?=\s*[\d.-])", "¤", text, count=1)
    return settle(text.replace("$", " "), "wrapping")


def number(text: str) -> Fraction | None:
    """Return the exact value of a literal: integer, decimal, fraction, mixed or scientific.

    A sum to be worked out is none, nor is a division without remainder: that would pay for copying
    the question."""
    text = settle(text, "number")
    if repeating := re.fullmatch(r"(-?[0-9]*)\.([0-9]*)\\overline\{([0-9]+)\}", text):
        start, period = repeating[1] + repeating[2], len(repeating[3])
        nines = 10 ** len(repeating[2]) * (10**period - 1)
        return Fraction(int(start + repeating[3]) - int(start or 0), nines)
    if not (match := re.fullmatch(NUMBER, text)):
        return None
    value = sum(map(Fraction, match[2].split()))
    if "/" in text and value.denominator == 1:
        return None
    return -value if match[1] else value


def canonical(words: str) -> list[str]:
    """Write unit words in one form: singular, spelled out, each once, without words that name nothing."""
    parts = []
    for word in re.findall(r"[a-z]+|[^\sa-z^.]", words.lower()):
        singular = re.sub(r"(?:(?<=[sxz])|(?<=[cs]h))es$|(?<=\w)s$", "", word)
        parts += TABLE["units"].get(singular, singular).split()
    return sorted(set(parts) - FILLERS)


def with_unit(text: str) -> tuple[str, list[str]]:
    """Split a quantity into (value, canonical unit words); no words where there is no unit."""
    if match := re.fullmatch(r"(-?)\s*([¤€£¥₹])\s*(.*)", text):
        value, words = with_unit(match[1] + match[3])
        return value, sorted({*words, *canonical(match[2])})
    match = re.search(UNIT, text)
    if match and match.start() and not re.search(r"\\(?!frac|sqrt|pi|cdot)[a-z]", text):
        return text[: match.start()].strip(), canonical(match[0])
    return text, []
