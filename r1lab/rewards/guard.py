"""Reads an answer as a strict person would: is it one clean answer, and does it say what gold says?

Everything here is text; mathematics proper is left to math-verify (`algebra.py`). There is no list of
forbidden phrases: a word, letter or sign that neither the gold answer nor the question's units nor
plain notation accounts for makes the answer wrong. Negations, hedges and remarks fail by that rule.

How an answer is spelled is a table, `spelling.toml`. What an answer may be is decided in this order,
each form compared in its own way:

| form             | example                       | is compared                                    |
|------------------|-------------------------------|------------------------------------------------|
| as written       | `3 R^2` is `3R^2`             | without spaces                                 |
| words, a choice  | `\\text{odd}` is `Odd`        | letter by letter, whatever the case            |
| code             | `2112_6`, `3:4`, `9:30AM`     | letter by letter                               |
| equation         | `y=2x-1` is `2y-4x+2=0`       | as a relation; after a label, the value alone  |
| matrix           | rows and cells                | cell by cell                                   |
| union            | `x<1 or x>2`                  | its intervals, in any order                    |
| interval, tuple  | `[0,1)` is `0 ≤ x < 1`        | both brackets, then each part                  |
| order            | `f(2) < f(1) = f(4)`          | signs and sides, in rising order               |
| list             | `1 ± 2` is `3 and -1`         | its items, in any order                        |
| quantity         | `440 cm^2` is `440 sq. cm`    | unit, then exact number, else by math-verify   |
"""

import itertools
import re
from dataclasses import dataclass
from fractions import Fraction

from r1lab.rewards.algebra import Unreadable, same_value
from r1lab.rewards.spelling import SIGNS, canonical, number, rewrite, tidy, with_unit

LONGEST = 1000  # characters; what is longer is not an answer
# What follows a number without being a unit of it.
NO_UNIT = set("thousand million billion dozen hundred half squared cubed not nope and about least "
              "most more less than times approximately approx roughly around maybe perhaps "
              "probably possibly likely wrong incorrect false true".split())

# A letter of multiple choice, with a formula as the option's text; another letter that is offered beside
# it; a choice within a sentence.
OPTION = r"\(?([A-Z])(?:\)[.:]?|[.:])\s*(?=.*[\d\\])((?:\\[a-z]+|[^A-Za-z\\]|[a-z](?![a-z]))+)"
CHOICE = (
    r"(?s)\W*(?:(?i:so|thus|therefore|hence),?\s*)?"
    r"(?:(?i:option|choice)\s*|选项?\s*)?\(?\b([A-Z]|[a-z](?=[).:\]]|\W*$))(?![A-Za-z])(.*)"
)
ALONE = r"\W*|\s*[)\].:,、–—-].*|\s+(?:because|since|as)\b.*"
ANOTHER = (r"\W*(?:and|or|&)?\W*\(?[A-Z](?!\w|\s+[a-z])|"
           r".*\b(?:or\s+\(?[A-Z]\b|maybe|perhaps|wait|actually|sorry|no,)")
CHOSEN = (r"(?:(?i:answer|option|choice|choose|chose|pick|select)|选项?)(?:\s+is)?\s*:?\s*\(?([A-Z])\b"
          r"(?!\)?\s*(?:or|and|,|/)\s*\(?[A-Z]\b|\)?\s+(?:is|are)(?:n['’]t|\s+(?:wrong|not|incorrect)))")

WORDS = r"(?=.*[A-Za-z]{3}|\(?[A-Z]+\)?$)[A-Za-z][A-Za-z' .-]*|\([A-Z]\)"
# Compared letter by letter: numbers to a base, ratios, times.
CODE = r"-?\w+_\w+|[\d:]+:\d+(?:[AP]M)?"
LABEL = (r"(?:(?:\\angle\s*)?(?:[A-Za-z]|[A-Z]{2,3})(?:_\w)?(?:\([\w, ]+\))?|\\theta|"
         r"\([a-z](?:,\s*[a-z])+\))\s*")
MATRIX = (
    r"(?s)\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}|"
    r"[(\[]\s*\\begin\{(?:matrix\}|array\}\{[clr]+\})(.*)\\end\{(?:matrix|array)\}\s*[)\]]"
)
THOUSANDS = r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!\d|,\d)"
SEPARATOR = r"(?:\s*(?:[,;\n]|(?<![A-Za-z])(?:and|or)(?![A-Za-z])))+\s*"
UNION = r"\\cup(?![a-z])|(?<![A-Za-z])or(?![A-Za-z])"
ORDER, FLIPPED = r"\s*([<>≤≥])\s*", str.maketrans("<>≤≥", "><≥≤")
INTERVALS, BRACES = ("()", "(]", "[)", "[]"), ("‹›",)
NOTATION = set(r"\frac \sqrt \pi \cdot \times \div \sin \cos \tan \cot \sec \csc \arcsin \arccos "
               r"\arctan \ln \log \exp \binom".split())
STRANGE = r"(?a)[^\w\s\\{}()\[\].+*/^!|°-]|\.\.|\d\s+\d|^\W*$"


def depths(text: str) -> list[int]:
    """Count the brackets that are open before each character, and at the end."""
    steps = ((char in "([{‹") - (char in ")]}›") for char in text)
    return list(itertools.accumulate(steps, initial=0))


def split(text: str, separator: str) -> list[str]:
    """Cut a text at the separators that are outside all brackets."""
    levels = depths(text)
    marked = re.sub(separator, lambda match: match[0] if levels[match.start()] else "\0", text)
    return [part.strip() for part in marked.split("\0")]


def enclosed(text: str, pairs: tuple[str, ...]) -> bool:
    """Tell whether all of the text is between one opening bracket and its partner, a pair of these."""
    return text[:1] + text[-1:] in pairs and all(depths(text)[1:-1])


def chain(text: str) -> list[str]:
    """Return the sides and signs of an inequality, in rising order; [] where it is none.

    One that bounds a letter from one side alone gets its other end: `x<3` is `-\\infty<x<3`."""
    parts = re.split(ORDER, text)
    if set(parts[1::2]) <= set(">≥"):
        parts = re.split(ORDER, text.translate(FLIPPED))[::-1]
    if len(parts) == 3 and re.fullmatch("[a-z]", parts[0]):
        parts = [r"-\infty", "<", *parts]
    elif len(parts) == 3 and re.fullmatch("[a-z]", parts[2]):
        parts = [*parts, "<", r"\infty"]
    return parts if parts[1:] and set(parts[1::2]) <= set("<≤") else []


def shape(text: str) -> tuple[str, list[str]]:
    """Return what an answer is (what holds it together), and its parts. `a ± b` is a list of two."""
    while enclosed(text, BRACES):
        text = text[1:-1].strip()
    if match := re.fullmatch(MATRIX, text):
        cells = re.split(r"(&|\\\\)", (match[1] or match[2] or "").strip().removesuffix(r"\\"))
        return "matrix" + "".join(cells[1::2]), [cell.strip() for cell in cells[::2]]
    parts = split(text, UNION)
    if parts[1:] and all(shape(part)[0] in INTERVALS or enclosed(part, BRACES) for part in parts):
        return "union", parts
    order = chain(text)
    if len(order) == 5 and re.fullmatch("[a-z]", order[2]):
        return "(["[order[1] == "≤"] + ")]"[order[3] == "≤"], order[::4]
    parts = split(text[1:-1], ",")
    if parts[1:] and enclosed(text, INTERVALS):
        return text[0] + text[-1], parts
    if order:
        return "".join(order[1::2]), order[::2]
    levels = depths(re.sub("[{}]", " ", text))
    text = re.sub(THOUSANDS, lambda m: m[0] if levels[m.start()] else m[0].replace(",", ""), text)
    items = []
    for item in split(text, SEPARATOR):
        items += [item.replace(r"\pm", sign) for sign in "+-"] if r"\pm" in item else [item]
    return "list" if items[1:] else "one", items


def squeeze(text: str) -> str:
    """Remove all spaces, except between digits."""
    return re.sub(r"(?<!\d) | (?!\d)", "", " ".join(text.split()))


def names(text: str) -> set[str]:
    """Return the commands of a text, with their backslash, and its letters."""
    return set(re.findall(r"\\[A-Za-z]+|[A-Za-z]", text))


def letters(text: str) -> set[str]:
    return set(filter(str.isalpha, names(text)))


def readable(text: str, gold: str) -> bool:
    """Tell whether this is one expression in plain notation, whose letters and commands the gold has."""
    levels = depths(text)
    balanced = min(levels) == 0 == levels[-1]
    return balanced and names(text) <= NOTATION | names(gold) and not re.search(STRANGE, text)


@dataclass(frozen=True)
class Guard:
    """Compares tidy texts. `asked`: the question's words in canonical form; empty if not known.

    Raises Unreadable if the gold answer means nothing to us or to math-verify."""

    asked: set[str]

    def equal(self, gold: str, answer: str) -> bool:
        if squeeze(gold) == squeeze(answer):
            return True
        if option := re.fullmatch(OPTION, answer):
            answer = option[1] if re.fullmatch(r"\(?[A-Z]\)?", gold) else answer
        if re.fullmatch(WORDS, gold):
            return gold.strip("()").casefold() == " ".join(answer.split()).strip("()").casefold()
        if re.fullmatch(CODE, gold):
            return False
        if gold.count("=") == 1:
            return self.equation(gold, answer)
        label = re.match(f"{LABEL}=", answer)
        if label and not letters(label[0]) & letters(gold):
            answer = answer[label.end() :].strip()
        (kind, wanted), (other, given) = shape(gold), shape(answer)
        if kind == "one" and other != "list":
            return self.quantity(wanted[0], given[0] if other == "one" else answer)
        if kind != other or len(wanted) != len(given):
            return False
        if kind in ("list", "union"):
            return self.equal_in_any_order(wanted, given)
        return all(map(self.equal, wanted, given))

    def equal_in_any_order(self, wanted: list[str], given: list[str]) -> bool:
        for item in wanted:
            equal = next((other for other in given if self.equal(item, other)), None)
            if equal is None:
                return False
            given.remove(equal)
        return True

    def equation(self, gold: str, answer: str) -> bool:
        left, right = gold.split("=")
        sides = answer.split("=")
        if re.fullmatch(LABEL, left) and ("(" in left or letters(right) <= {"i"}):
            rest = [side.strip() for side in sides if squeeze(side) != squeeze(left)]
            return len(rest) == 1 and len(sides) < 3 and self.equal(right.strip(), rest[0])
        if len(sides) != 2 or not all(readable(side, gold) for side in sides):
            return False
        return same_value(f"{left}-({right})", f"{sides[0]}-({sides[1]})", relation=True)

    def quantity(self, gold: str, answer: str) -> bool:
        (gold, unit), (answer, given) = with_unit(gold), with_unit(answer)
        scale = 1
        if given and given != unit:
            if unit or NO_UNIT & set(given):
                return False
            if given == ["percent"] and "percent" not in self.asked:
                scale = 100
            elif not (self.asked.issuperset(given) if self.asked else len(given) < 3):
                return False
        exact = number(gold)
        if exact is not None:
            return exact * scale == number(answer)
        if scale != 1 or "infty" in gold + answer or not readable(answer, gold):
            return False
        return same_value(gold, answer)


def value(answer: str, question: str = "") -> Fraction | None:
    """Return the number that an answer is, whatever its unit; None where it is none. Percent is a
    hundredth unless the question asks for it."""
    text, unit = with_unit(tidy(answer))
    parsed = number(text)
    percent = "percent" in unit and not re.search("%|percent", question)
    return parsed / 100 if percent and parsed is not None else parsed


def chosen(answer: str) -> str | None:
    """Return the letter that an answer to a question of multiple choice gives, with or without the
    option's text; None where there is none, or more than one."""
    text = re.sub(r"\\(?:text|math)\w*|\\boxed|\\[ ,;]|[{}$*`]", " ", answer).translate(SIGNS)
    letters = set(re.findall(CHOSEN, text))
    text = rewrite(rewrite(text, "statement"), "rejected")
    choice = re.fullmatch(CHOICE, text.rpartition("␞")[2].strip())
    if len(letters) > 1 or choice and re.match(ANOTHER, choice[2]):
        return None
    if choice and re.fullmatch(ALONE, choice[2], re.DOTALL):
        return choice[1].upper()
    letters = letters or set(re.findall(r"\(([A-Z])\)", text))
    return letters.pop() if len(letters) == 1 else None


def equivalent(gold: str, answer: str, question: str = "") -> bool | None:
    """Tell whether `answer` is one clean way to write `gold`.

    `question` is what units are held against: a unit that the gold lacks must occur in it (with no
    question to speak of, one or two words pass as a unit). None: the gold answer cannot be read."""
    gold = tidy(gold)
    answer = tidy(answer) if len(answer) <= LONGEST else ""
    if not gold:
        return None
    words = re.findall(r"[A-Za-z]+|[$%°]|(?<=\^)[23]", question)
    known = sum(len(word) > 2 for word in words) > 1
    asked = {"unit", *canonical(" ".join(word for word in words if word != "in"))}
    try:
        return bool(answer) and Guard(asked if known else set()).equal(gold, answer)
    except Unreadable:
        return None
