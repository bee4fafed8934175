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

Same = Callable[[str, str, bool], bool | None]

LONGEST = 1000  # characters; what is longer is not an answer
SIGNS = str.maketrans(
    {0xFF01 + i: 0x21 + i for i in range(94)}  # full-width forms, as in Chinese text
    | {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "θ": r"\theta ",
       "∞": r"\infty ", "∪": r"\cup ", "±": r"\pm ", "∈": r"\in ", "≤": r"\le ", "≥": r"\ge ",
       "½": r"\frac12", "。": ".", "’": "'", "“": '"', "”": '"',
       "\u00a0": " ", "\u2009": " ", "\u202f": " "})
SMALL = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻₀₁₂₃₄₅₆₇₈₉", "0123456789-0123456789")
NAMES = "sqrt|pi|sin|cos|tan|cot|sec|csc|ln|log|exp|arcsin|arccos|arctan|theta"
# One spelling for each thing; the order matters.
SPELLING = [(re.compile(pattern), new) for pattern, new in [
    (r"[²³]", lambda m: "^" + m[0].translate(SMALL)),
    (r"[⁰¹⁴-⁹⁻]+", lambda m: f"^{{{m[0].translate(SMALL)}}}"),
    (r"[₀-₉]+", lambda m: f"_{{{m[0].translate(SMALL)}}}"),
    (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle)(?![a-zA-Z])|(?<=\\\\)\[\d*\.?\d+\w\w\]", ""),
    (r"\\[dtc]frac", r"\\frac"), (r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
    (r"(?<=\d)(?:,\s*\\!|\{,\}|\\[,;])\s*(?=\d{3}(?!\d))|\\!", ""),
    (r"(?<!\\)\\(?:[()\[\],;: ]|q?quad)|(?<=\S)~", " "),
    (r"\\(?:\{|lbrace(?![a-z]))", "‹"), (r"\\(?:\}|rbrace(?![a-z]))", "›"),
    (r"^\s*\{([^{}]*,[^{}]*)\}\s*$", r"‹\1›"),
    (r"\\langle(?![a-z])", "("), (r"\\rangle(?![a-z])", ")"),
    (r"\\(?:text|mathrm)\s*\{\s*([gmshL])\s*\}", lambda m: f" {UNITS[m[1].lower()]} "),
    (r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r" \1 "),
    (r"\\\$|\bUSD\b", "¤"), (r"\\%|\bpercent\b", "%"), (r"(?<=[\w)])\*\*(?=[\w(-])", "^"),
    (r"(?:\{\})?\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))|\\degree(?![a-z])", "°"),
    (r"\s*\bdeg(?:rees?)?\b", "°"),
    (r"√\s*(\d+|[a-z])", r"\\sqrt{\1}"), (r"√", r"\\sqrt"),
    (r"\\le(?:q|qslant)?(?![a-z])|<=", r"\\le "), (r"\\ge(?:q|qslant)?(?![a-z])|>=", r"\\ge "),
    (r"\\lt(?![a-z])", "<"), (r"\\gt(?![a-z])", ">"), (r"\+-", r"\\pm "),
    (rf"(?<![\\a-zA-Z])({NAMES})(?![a-z])", r"\\\1"),
    (r"(?<![\\a-zA-Z])(?:oo|inf(?:inity|ty)?)(?![a-z])|\+\s*\\infty", r"\\infty"),
    (r"(?<=[\])])\s*U\s*(?=[\[(])|\\bigcup(?![a-z])", r"\\cup "),
    (r"(?<=\d)\s+to\s+(?=\d)|\s*\\colon\s*|\\mathbin\{:\}|\s*:\s*", ":"),
    (r"(?<=\d)\s*/\s*(?=\d)", "/"),
    (r"(?<=\d)\s*[aA]\.?[mM]\b\.?", "AM"), (r"(?<=\d)\s*[pP]\.?[mM]\b\.?", "PM"),
    (r"\s*(?:\bin\s+)?\(?\bbase[\s-]+(\d+)\)?|_\{\s*\(?(\d+)\)?\s*\}", r"_\1\2"),
    (r"^\((\w+)\)_", r"\1_"), (r"([\^_])\{(\w)\}", r"\1\2"),
]]
LEAD = re.compile(
    r"(?:so|thus|therefore|hence|finally),?\s+|=\s*|[a-z]\s*\\in(?![a-z])\s*|"
    r"(?:(?:the|my)\s+)?(?:(?:final|correct)\s+)?(?:answer|result|solution|value)\b"
    r"(?:\s+of\s+[a-z]\b)?\s*[:=]?\s*|we\s+(?:get|have|find|obtain)\s+|(?:option|choice)\s+|"
    r"(?:(?:it|this|there)\s+)?(?:is|are|equals)(?:\s*[:=]\s*|\s+)|"
    r"(?:an?|on|the)\s+(?!and\b|or\b)(?=[a-z]{3})|"
    r"(?:最终)?答案(?:[是为]|:)+\s*|la réponse est\s*:?\s*", re.I)
TAIL = re.compile(r"\.?\s*i hope it is correct\.?$|(?<!\.)[.,;:]$", re.I)

UNITS = {"cm": "centimeter", "km": "kilometer", "mm": "millimeter", "kg": "kilogram", "gm": "gram",
         "ft": "foot", "feet": "foot", "in": "inch", "sq": "square", "min": "minute", "hr": "hour",
         "mph": "mile per hour", "g": "gram", "m": "meter", "s": "second", "h": "hour",
         "l": "liter", "%": "percent", "°": "degree", "¤": "dollar", "$": "dollar",
         "€": "euro", "£": "pound", "2": "square", "3": "cubic"}
UNIT = re.compile(r"(?:(?:\s(?:[A-Za-z]{3,}|of)|\s*[°%¤€£]|(?:\s|(?<![A-Za-z\\]))"
                  r"(?:cm|km|mm|kg|gm|ft|in|sq\.?|hr)(?![A-Za-z]))(?:\s*\^\s*[23])?)+$")
POWERS = {"area": "square", "volume": "cubic"}
# What follows a number without being a unit of it.
NO_UNIT = set("thousand million billion dozen hundred half squared cubed not nope and about least "
              "most more less than times approximately approx roughly around maybe perhaps "
              "probably possibly likely wrong incorrect false true".split())

INT = r"(?:[0-9]{1,3}(?:[, ][0-9]{3})+|[0-9]+)"
FRAC = re.compile(r"\\frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(-?\d+)\s*\}|(\d))", re.A)
RATIO = re.compile(rf"(?:({INT})\s+)?({INT})/({INT})")
DECIMAL = re.compile(rf"({INT}(?:\.[0-9]*)?|\.[0-9]+)"
                     r"(?:(?:e|\s*(?:\\times|\\cdot|\*|x)\s*10\^)\{?([+-]?[0-9]{1,3})\}?)?")

WORDS = re.compile(r"(?=.*[A-Za-z]{3}|\(?[A-Z]+\)?$)[A-Za-z][A-Za-z' .-]*|\([A-Z]\)")
# Compared letter by letter: numbers to a base, ratios, times.
CODE = re.compile(r"-?\w+_\w+|[\d:]+:\d+(?:[AP]M)?")
LABEL = re.compile(r"(?:(?:\\angle\s*)?(?:[A-Za-z]|[A-Z]{2,3})(?:_\w)?(?:\([\w, ]+\))?|\\theta|"
                   r"\([a-z](?:,\s*[a-z])+\))\s*")
MATRIX = re.compile(
    r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}|"
    r"[(\[]\s*\\begin\{(?:matrix\}|array\}\{[clr]+\})(.*)\\end\{(?:matrix|array)\}\s*[)\]]",
    re.S)
SEPARATOR = re.compile(r"(?:\s*(?:[,;\n]|(?<![A-Za-z])(?:and|or)(?![A-Za-z])))+\s*")
COMMA, UNION = re.compile(","), re.compile(r"\\cup(?![a-z])|(?<![A-Za-z])or(?![A-Za-z])")
NOTATION = set("frac sqrt pi cdot times div sin cos tan cot sec csc arcsin arccos arctan ln log "
               "exp binom".split())
STRANGE = re.compile(r"[^\w\s\\{}()\[\].+*/^!|°-]|\.\.|\d\s+\d", re.A)


class Unreadable(Exception):
    """The gold answer cannot be read, so nothing can be graded against it."""


def tidy(text: str) -> str:
    """One spelling for each sign, without delimiters, lead-ins and closing punctuation."""
    text = text.translate(SIGNS)
    for pattern, new in SPELLING:
        text = pattern.sub(new, text)
    if text.count("$") % 2:  # a dollar amount, not a pair of delimiters
        text = re.sub(r"\$(?=\s*[\d.-])", "¤", text, count=1)
    text, before = text.replace("$", " "), None
    while text != before:
        before, text = text, TAIL.sub("", text.strip()).strip()
        text = text[lead.end():] if (lead := LEAD.match(text)) else text
        for left, right in (("**", "**"), ("*", "*"), ("'", "'"), ('"', '"'), ("`", "`"),
                            (r"\boxed{", "}")):
            inner = text.removeprefix(left).removesuffix(right)
            if len(inner) == len(text) - len(left + right) and balanced(inner):
                text = inner
    return re.sub(r"\\boxed\{([^{}]*)\}", r" \1 ", text).strip()


def depths(text: str) -> list[int]:
    """How many brackets are open before each character, and at the end."""
    steps = ((char in "([{‹") - (char in ")]}›") for char in text)
    return list(itertools.accumulate(steps, initial=0))


def balanced(text: str) -> bool:
    levels = depths(text)
    return min(levels) == 0 == levels[-1]


def split(text: str, separator: re.Pattern) -> list[str]:
    """The parts of `text` between separators that stand outside all brackets."""
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
    text = FRAC.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text).strip()
    text = re.sub(r"^(-?)(\d+)/-", r"-\1\2/", text)
    text, sign = re.sub(r"\((-?[0-9]+)\)/\(([0-9]+)\)", r"\1/\2", text), 1
    while match := re.fullmatch(r"([+-]?)\s*\(([^()]*)\)|([+-])(.+)", text):
        sign *= -1 if "-" in (match[1] or match[3] or "") else 1
        text = (match[2] or match[4] or "").strip()
    if match := RATIO.fullmatch(text):
        whole, top, bottom = (int(re.sub("[, ]", "", part or "0")) for part in match.groups())
        value = Fraction(top, bottom) if bottom else Fraction(0)
        return sign * (whole + value) if value.denominator > 1 else None
    if match := DECIMAL.fullmatch(re.sub(r"^10\^", "1e", text)):
        value = Fraction(re.sub("[, ]", "", match[1])) * Fraction(10) ** int(match[2] or 0)
        return sign * value
    return None


def canonical(words: str) -> list[str]:
    """Unit words in one form: singular, spelled out, a power before its unit."""
    found = re.findall(r"[a-z]+|[^\sa-z^.]", words.lower())
    one = [UNITS.get(w) or re.sub(r"((?<=[sxz])|(?<=[cs]h))es$|s$", "", w) for w in found]
    return sorted(part for word in one for part in UNITS.get(word, word).split())


def with_unit(text: str) -> tuple[str, list[str]]:
    """A quantity as (value, canonical unit words); no words where there is no unit."""
    if match := re.fullmatch(r"(-?)\s*([¤€£])\s*(.*)", text):
        return match[1] + match[3], canonical(match[2])
    match = UNIT.search(text)
    if match and match.start() and not re.search(r"\\(?!frac|sqrt|pi|cdot)[a-z]", text):
        return text[:match.start()].strip(), canonical(match.group())
    return text, []


def bracketed(text: str) -> tuple[str, list[str], str] | None:
    """A tuple, interval or set as (bracket, elements, bracket)."""
    if text[:1] and text[0] in "([‹" and text[-1] in ")]›" and all(depths(text)[1:-1]):
        items = split(text[1:-1], COMMA)
        return (text[0], items, text[-1]) if len(items) > 1 or text[0] == "‹" else None
    return None


def chain(text: str) -> tuple[list[str], list[str]] | None:
    """An inequality in rising order, as (sides, signs)."""
    parts = re.split(r"\s*(<|>|\\le(?![a-z])|\\ge(?![a-z]))\s*", text)
    if len(parts) > 1 and all(sign in (">", r"\ge") for sign in parts[1::2]):
        parts = [{">": "<", r"\ge": r"\le"}.get(part, part) for part in reversed(parts)]
    rising = len(parts) > 1 and all(sign in ("<", r"\le") for sign in parts[1::2])
    return (parts[::2], parts[1::2]) if rising else None


def inequality(text: str) -> tuple[str, list[str], str] | None:
    """An inequality in one letter as the interval that it means."""
    sides, signs = chain(text) or ([], [])
    if len(sides) == 2:
        if re.fullmatch("[a-z]", sides[0]):
            sides, signs = [r"-\infty", *sides], ["<", *signs]
        else:
            sides, signs = [*sides, r"\infty"], [*signs, "<"]
    if len(sides) == 3 and re.fullmatch("[a-z]", sides[1]):
        return "(["[signs[0] != "<"], sides[::2], ")]"[signs[1] != "<"]
    return None


def pieces(text: str) -> list[tuple[str, list[str], str]] | None:
    """The parts of a union of tuples, intervals, sets and inequalities."""
    parts = [bracketed(part) or inequality(part) for part in split(text, UNION)]
    return parts if all(parts) else None


def matrix(text: str) -> list[list[str]] | None:
    match = MATRIX.fullmatch(text)
    rows = match and (match[1] or match[2] or "").strip().removesuffix(r"\\").split(r"\\")
    return rows and [[cell.strip() for cell in row.split("&")] for row in rows]


def elements(text: str) -> list[str]:
    """What a list or a set holds; `a ± b` is two elements."""
    inside = depths(re.sub("[{}]", " ", text))
    text = re.sub(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!\d|,\d)",
                  lambda m: m.group() if inside[m.start()] else m.group().replace(",", ""), text)
    text = text[1:-1] if text[:1] == "‹" and bracketed(text) else text
    both = [[item.replace(r"\pm", sign) for sign in "+-"] if r"\pm" in item else [item]
            for item in split(text, SEPARATOR)]
    return [item for items in both for item in items]


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
    return bool(re.search(r"\w", text)) and known and balanced(text) and not STRANGE.search(text)


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
        if rows := matrix(gold):
            others = matrix(answer) or []
            return [len(row) for row in rows] == [len(row) for row in others] and all(
                map(self.equal, sum(rows, []), sum(others, [])))
        if parts := pieces(gold):
            if parts[0][0] != "‹" or len(parts) > 1:
                return self.match(self.equal_pieces, parts, pieces(answer) or [])
        if order := chain(gold):
            sides, signs = chain(answer) or ([], [])
            return signs == order[1] and all(map(self.equal, order[0], sides))
        wanted, found = elements(gold), elements(answer)
        if len(wanted) > 1 or len(found) > 1 or parts:
            return self.match(self.equal, wanted, found)
        return self.quantity(wanted[0], found[0])

    def match(self, equal: Callable, wanted: list, found: list) -> bool:
        """Are these the same elements, in any order?"""
        if len(wanted) != len(found):
            return False
        rest = list(found)
        for item in wanted:
            place = next((i for i, other in enumerate(rest) if equal(item, other)), None)
            if place is None:
                return False
            del rest[place]
        return True

    def equal_pieces(self, gold: tuple, other: tuple) -> bool:
        if (gold[0], gold[2], len(gold[1])) != (other[0], other[2], len(other[1])):
            return False
        return self.match(self.equal, gold[1], other[1]) if gold[0] == "‹" else all(
            map(self.equal, gold[1], other[1]))

    def equation(self, gold: str, answer: str) -> bool:
        left, right = gold.split("=")
        sides = answer.split("=")
        if LABEL.fullmatch(left) and ("(" in left or letters(right) <= {"i"}):
            rest = [side.strip() for side in sides if squeeze(side) != squeeze(left)]
            return len(rest) == 1 and len(sides) < 3 and self.equal(right.strip(), rest[0])
        if len(sides) != 2 or not all(readable(side, gold) for side in sides):
            return False
        return self.ask(f"{left}-({right})", f"{sides[0]}-({sides[1]})", True)

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
        return self.ask(gold, answer, False)

    def ask(self, gold: str, answer: str, relation: bool) -> bool:
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
