"""Reads an answer as a strict person would: is it one clean answer, and does it say what gold says?

Everything here is text; mathematics proper is left to `same`, which asks math-verify. There is no
list of forbidden phrases: a word, letter or sign that neither the gold answer nor the question's
units nor plain notation accounts for makes the answer wrong. Negations, hedges and remarks fall to
that rule.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from r1lab.rewards.spelling import TABLE, settle, tidy

Same = Callable[[str, str, bool], bool | None]

LONGEST = 1000  # characters; what is longer is not an answer
UNIT = re.compile(r"(?:(?:\s(?:[A-Za-z]{3,}|of)|\s*[°%¤€£]|(?:\s|(?<![A-Za-z\\]))"
                  r"(?:cm|km|mm|kg|gm|ft|in|sq\.?|hr)(?![A-Za-z]))(?:\s*\^\s*[23])?)+$")
POWERS = {"area": "square", "volume": "cubic"}
# What follows a number without being a unit of it.
NO_UNIT = set("thousand million billion dozen hundred half squared cubed not nope and about least "
              "most more less than times approximately approx roughly around maybe perhaps "
              "probably possibly likely wrong incorrect false true".split())

RATIO = re.compile(r"(-?)(?:([0-9]+)\s+)?([0-9]+)/([0-9]+)")
DECIMAL = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]{1,3})?")

WORDS = re.compile(r"(?=.*[A-Za-z]{3}|\(?[A-Z]+\)?$)[A-Za-z][A-Za-z' .-]*|\([A-Z]\)")
# Compared letter by letter: numbers to a base, ratios, times.
CODE = re.compile(r"-?\w+_\w+|[\d:]+:\d+(?:[AP]M)?")
LABEL = re.compile(r"(?:(?:\\angle\s*)?(?:[A-Za-z]|[A-Z]{2,3})(?:_\w)?(?:\([\w, ]+\))?|\\theta|"
                   r"\([a-z](?:,\s*[a-z])+\))\s*")
MATRIX = re.compile(
    r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}|"
    r"[(\[]\s*\\begin\{(?:matrix\}|array\}\{[clr]+\})(.*)\\end\{(?:matrix|array)\}\s*[)\]]",
    re.S)
THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
SEPARATOR = re.compile(r"(?:\s*(?:[,;\n]|(?<![A-Za-z])(?:and|or)(?![A-Za-z])))+\s*")
UNION = re.compile(r"\\cup(?![a-z])|(?<![A-Za-z])or(?![A-Za-z])")
ORDER, FLIPPED = re.compile(r"\s*([<>≤≥])\s*"), str.maketrans("<>≤≥", "><≥≤")
NOTATION = set("frac sqrt pi cdot times div sin cos tan cot sec csc arcsin arccos arctan ln log "
               "exp binom".split())
STRANGE = re.compile(r"[^\w\s\\{}()\[\].+*/^!|°-]|\.\.|\d\s+\d", re.A)


class Unreadable(Exception):
    """The gold answer cannot be read, so nothing can be graded against it."""


def depths(text: str) -> list[int]:
    """How many brackets are open before each character, and at the end."""
    steps = ((char in "([{‹") - (char in ")]}›") for char in text)
    return list(itertools.accumulate(steps, initial=0))


def split(text: str, separator: re.Pattern) -> list[str]:
    """The parts of `text` between separators that are outside all brackets."""
    levels, parts, start = depths(text), [], 0
    for match in separator.finditer(text):
        if levels[match.start()] == 0:
            parts.append(text[start:match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def number(text: str) -> Fraction | None:
    """The exact value of a literal: integer, decimal, fraction, mixed or scientific.

    A sum to be worked out is none, nor is a division without remainder: that would pay for copying
    the question."""
    text = settle(text, "number")
    if match := RATIO.fullmatch(text):
        whole, top, bottom = (int(part or 0) for part in match.groups()[1:])
        value = whole + Fraction(top, bottom or 1)
        return None if value.denominator == 1 else Fraction(f"{match[1]}{value}")
    return Fraction(text) if DECIMAL.fullmatch(text) else None


def canonical(words: str) -> list[str]:
    """Unit words in one form: singular, spelled out, a power before its unit."""
    parts = []
    for word in re.findall(r"[a-z]+|[^\sa-z^.]", words.lower()):
        singular = re.sub(r"(?:(?<=[sxz])|(?<=[cs]h))es$|(?<=\w)s$", "", word)
        parts += TABLE["units"].get(singular, singular).split()
    return sorted(parts)


def with_unit(text: str) -> tuple[str, list[str]]:
    """A quantity as (value, canonical unit words); no words where there is no unit."""
    if match := re.fullmatch(r"(-?)\s*([¤€£])\s*(.*)", text):
        return match[1] + match[3], canonical(match[2])
    match = UNIT.search(text)
    if match and match.start() and not re.search(r"\\(?!frac|sqrt|pi|cdot)[a-z]", text):
        return text[:match.start()].strip(), canonical(match[0])
    return text, []


def enclosed(text: str, brackets: str, closing: str) -> bool:
    """Is all of the text between one opening bracket and its partner?"""
    ends = len(text) > 1 and text[0] in brackets and text[-1] in closing
    return ends and all(depths(text)[1:-1])


def interval(text: str) -> tuple[str, list[str]] | None:
    """A tuple, an interval, or an inequality in one letter, as (its two brackets, its parts)."""
    order = chain(text)
    if len(order) == 3:
        letter_first = re.fullmatch("[a-z]", order[0])
        order = [r"-\infty", "<", *order] if letter_first else [*order, "<", r"\infty"]
    if len(order) == 5 and re.fullmatch("[a-z]", order[2]):
        return "(["[order[1] == "≤"] + ")]"[order[3] == "≤"], order[::4]
    parts = split(text[1:-1], re.compile(","))
    if len(parts) > 1 and enclosed(text, "([", ")]"):
        return text[0] + text[-1], parts
    return None


def chain(text: str) -> list[str]:
    """The sides and signs of an inequality, in rising order; [] where it is none."""
    parts = ORDER.split(text)
    if {">", "≥"}.issuperset(parts[1::2]):
        parts = ORDER.split(text.translate(FLIPPED))[::-1]
    return parts if parts[1:] and {"<", "≤"}.issuperset(parts[1::2]) else []


def shape(text: str) -> tuple[str, list[str]]:
    """What an answer is (what holds it together), and its parts. `a ± b` is a list of two."""
    while enclosed(text, "‹", "›"):
        text = text[1:-1].strip()
    if match := MATRIX.fullmatch(text):
        cells = re.split(r"(&|\\\\)", (match[1] or match[2] or "").strip().removesuffix(r"\\"))
        return "matrix" + "".join(cells[1::2]), [cell.strip() for cell in cells[::2]]
    parts = split(text, UNION)
    if len(parts) > 1 and all(interval(part) or enclosed(part, "‹", "›") for part in parts):
        return "union", parts
    if found := interval(text):
        return found
    if order := chain(text):
        return "".join(order[1::2]), order[::2]
    levels = depths(re.sub("[{}]", " ", text))
    text = THOUSANDS.sub(lambda m: m[0] if levels[m.start()] else m[0].replace(",", ""), text)
    items = []
    for item in split(text, SEPARATOR):
        items += [item.replace(r"\pm", sign) for sign in "+-"] if r"\pm" in item else [item]
    return "list" if items[1:] else "one", items


def squeeze(text: str) -> str:
    """The text without spaces, save between digits."""
    return re.sub(r"(?<!\d) | (?!\d)", "", " ".join(text.split()))


def letters(text: str) -> set[str]:
    return set(re.findall("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", text)))


def commands(text: str) -> set[str]:
    return set(re.findall(r"\\([A-Za-z]+)", text))


def readable(text: str, gold: str) -> bool:
    """Is this one expression in plain notation, with no letter or name that the gold lacks?"""
    known = letters(text) <= letters(gold) and commands(text) <= NOTATION | commands(gold)
    levels = depths(text)
    balanced = min(levels) == 0 == levels[-1]
    return bool(re.search(r"\w", text)) and known and balanced and not STRANGE.search(text)


@dataclass(frozen=True)
class Guard:
    """Compares tidy texts. `asked`: the question's words in canonical form, None if not known."""

    same: Same
    asked: frozenset[str] | None

    def equal(self, gold: str, answer: str) -> bool:
        """Raises Unreadable if the gold answer means nothing to us or to math-verify."""
        if squeeze(gold) == squeeze(answer):
            return True
        if WORDS.fullmatch(gold):
            return gold.strip("()").casefold() == " ".join(answer.split()).strip("()").casefold()
        if CODE.fullmatch(gold):
            return False
        if gold.count("=") == 1:
            return self.equation(gold, answer)
        label, equals, rest = answer.partition("=")
        if equals and LABEL.fullmatch(label) and not letters(label) & letters(gold):
            answer = rest.strip()
        (kind, wanted), (other, found) = shape(gold), shape(answer)
        if kind == "one" and other != "list":
            return self.quantity(wanted[0], found[0] if other == "one" else answer)
        if kind != other or len(wanted) != len(found):
            return False
        if kind in ("list", "union"):
            return self.equal_in_any_order(wanted, found)
        return all(map(self.equal, wanted, found))

    def equal_in_any_order(self, wanted: list[str], found: list[str]) -> bool:
        for item in wanted:
            equal = next((other for other in found if self.equal(item, other)), None)
            if equal is None:
                return False
            found.remove(equal)
        return True

    def equation(self, gold: str, answer: str) -> bool:
        left, right = gold.split("=")
        sides = answer.split("=")
        if LABEL.fullmatch(left) and ("(" in left or letters(right) <= {"i"}):
            rest = [side.strip() for side in sides if squeeze(side) != squeeze(left)]
            return len(rest) == 1 and len(sides) < 3 and self.equal(right.strip(), rest[0])
        if len(sides) != 2 or not all(readable(side, gold) for side in sides):
            return False
        return self.ask(f"{left}-({right})", f"{sides[0]}-({sides[1]})", relation=True)

    def quantity(self, gold: str, answer: str) -> bool:
        (gold, unit), (answer, given) = with_unit(gold), with_unit(answer)
        scale = Fraction(1)
        if given and given != unit:
            if unit or NO_UNIT & set(given):
                return False
            if given == ["percent"] and "percent" not in (self.asked or ()):
                scale = Fraction(1, 100)
            elif not (self.asked.issuperset(given) if self.asked else len(given) < 3):
                return False
        exact, value = number(gold), number(answer)
        if exact is not None:
            return value is not None and exact == value * scale
        if scale != 1 or "infty" in gold + answer or not readable(answer, gold):
            return False
        return self.ask(gold, answer)

    def ask(self, gold: str, answer: str, relation: bool = False) -> bool:
        verdict = self.same(gold, answer, relation)
        if verdict is None:
            raise Unreadable(gold)
        return verdict


def equivalent(gold: str, answer: str, same: Same, question: str = "") -> bool | None:
    """Is `answer` one clean way to write `gold`?

    `question` is what units are held against: a unit that the gold lacks must occur in it (with no
    question to speak of, one or two words pass as a unit). None: the gold answer cannot be read."""
    gold = tidy(gold)
    answer = tidy(answer) if len(answer) <= LONGEST else ""
    if not gold:
        return None
    words = re.findall(r"[A-Za-z]+|[$%°]|(?<=\^)[23]", question)
    asked = {"unit", *canonical(" ".join(word for word in words if word != "in"))}
    asked |= {power for measure, power in POWERS.items() if measure in asked}
    known = sum(len(word) > 2 for word in words) > 1
    try:
        return bool(answer) and Guard(same, frozenset(asked) if known else None).equal(gold, answer)
    except Unreadable:
        return None
