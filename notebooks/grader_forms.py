"""Ways to write a right answer, each of which a grader must accept; `grader_wrong_forms.py` has wrong ones.

A row is `{"gold", "type", ...}` as in the gold files. Of a question, `unit` is what it counts, `drop_unit` says
that it names the unit (so the bare number is right), `bare_ok` that the value alone will do, `only_fraction` and
`only_decimal` which notation it asked for. The forms were fixed before the grader was written."""

import re
from fractions import Fraction

NUMERIC = {"integer", "fraction", "decimal", "mixed"}
WORDS = {"text", "choice", "list_choice"}
TERMS = {"expression", "radical", "pi", "complex"}
FRACTION = r"(-?)\\[dt]?frac\s*(?:\{(-?\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))"
UNICODE = [(r"\\pi", "π"), (r"\\infty", "∞"), (r"\\cup", "∪"), (r"\\pm", "±"), (r"\\cdot", "·"),
           (r"\\sqrt\s*(\d)(?!\d)", r"√\1"), (r"\\sqrt\{(\d+)\}", r"√\1"), ("-", "−"),
           (r"\^\{?\\circ\}?", "°"), (r"\^2(?!\d)", "²"), (r"\^3(?!\d)", "³")]


def question(row: dict) -> str:
    """The words of a question that name the unit, as the problem's text would."""
    return f"How many {row['unit']} are there?" if "unit" in row else "Find the answer."


def value(gold: str) -> Fraction | None:
    """The exact value of a plain number in any of the notations of the gold files."""
    text = re.sub(r"\\!|\s|\{,\}|,", "", gold)
    if match := re.fullmatch(r"(-?)(\d*)" + FRACTION, text):
        sign, whole, inner, a, a1, b, b1 = match.groups()
        number = Fraction(int(whole or 0)) + Fraction(int(a or a1), int(b or b1))
        return -number if sign or inner else number
    return Fraction(text) if re.fullmatch(r"-?\d*\.?\d+(/\d+)?", text) else None


def terminates(number: Fraction) -> bool:
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def decimal(number: Fraction) -> str:
    """`number` written out; it must terminate."""
    digits = next(k for k in range(60) if (number * 10**k).denominator == 1)
    whole = str(abs(int(number * 10**digits))).rjust(digits + 1, "0")
    text = f"{whole[:-digits]}.{whole[-digits:]}" if digits else whole
    return "-" * (number < 0) + text


def plain(gold: str) -> str:
    """LaTeX as it is typed without LaTeX."""
    text = re.sub(r"\\left|\\right|\\[,;! ]|\\(?=[%${}])", "", gold)
    text = re.sub(r"\\(?:text|mbox)\s*\{([^}]*)\}", r"\1", text)
    for _ in range(3):
        text = re.sub(r"\\sqrt\s*(?:\{([^{}]*)\}|(\w))", r"sqrt(\1\2)", text)
        text = re.sub(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|(\w))\s*(?:\{([^{}]*)\}|(\w))",
                      r"((\1\2)/(\3\4))", text)
    text = re.sub(r"\^\{?\\circ\}?", " degrees", text)
    text = re.sub(r"\^\{(\d+)\}", r"^\1", text)
    for name, sign in [("infty", "infinity"), ("pi", "pi"), ("cup", "U"), ("cdot", "*"),
                       ("pm", "+-"), ("(sin|cos|tan|cot|sec)", r"\1")]:
        text = re.sub(rf"\\{name}(?![a-z])", sign, text)
    return text


def unicode(gold: str) -> str:
    for pattern, sign in UNICODE:
        gold = re.sub(pattern, sign, gold)
    return gold


def split(text: str, separator: str = ",") -> list[str]:
    """The parts of `text` at separators outside all brackets."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if not depth and text.startswith(separator, i):
            parts.append(text[start:i])
            start = i + len(separator)
    return [part.strip() for part in parts + [text[start:]]]


def terms(text: str) -> list[str]:
    """The signed terms of a sum, as written."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if not depth and char in "+-" and parts[-1].strip():
            parts.append("")
        parts[-1] += char
    return [part.strip() for part in parts]


def reordered(text: str) -> str:
    """A sum with its last term first."""
    parts = [part if part[0] in "+-" else "+" + part for part in terms(text)]
    return " ".join(parts[-1:] + parts[:-1]).removeprefix("+")


def bare_unit(row: dict) -> tuple[str, str]:
    """The number and the unit of a gold answer that carries one ("" where it carries none)."""
    gold = row["gold"]
    if row["type"] == "currency":
        return re.sub(r"\\\$\s*", "", gold), "dollars"
    if row["type"] == "degrees":
        return re.sub(r"\s*\^\{?\\circ\}?", "", gold), "degrees"
    if row["type"] == "percent":
        return gold.removesuffix(r"\%"), "percent"
    if row["type"] == "unit":
        return re.split(r"\s*\\(?:[,;]|text|mbox)", gold)[0], ""
    return gold, ""


def wrapped(gold: str) -> list[str]:
    """The same answer in the sentences and delimiters in which models put it."""
    return [gold, f"${gold}$", f"$${gold}$$", rf"\({gold}\)", rf"\[ {gold} \]", f"  {gold}\n",
            rf"\boxed{{{gold}}}", rf"$\boxed{{{gold}}}$.", rf"\[\boxed{{{gold}}}\]", f"**{gold}**",
            f"The answer is ${gold}$.", f"${gold}$.", f"The final answer is: ${gold}$", f"Answer: {gold}",
            f"So the answer is {gold}.", rf"Therefore, the answer is \boxed{{{gold}}}.",
            f"答案是 ${gold}$。", f"La réponse est ${gold}$.",
            f"Final Answer: The final answer is ${gold}$. I hope it is correct."]


def number_forms(row: dict, number: Fraction) -> list[str]:
    """Other notations of one exact number."""
    sign, size = "-" * (number < 0), abs(number)
    a, b = size.numerator, size.denominator
    forms = []
    if b == 1:
        forms += [f"{sign}{a}.0", f"{sign}{a}", f"{sign}{a}.", f"{sign}{a:,}"]
        forms += [f"{sign}{a:,}".replace(",", mark) for mark in (r",\!", "{,}", r"\,", "\u2009")]
    elif "only_decimal" not in row:
        forms += [f"{sign}{a}/{b}", rf"{sign}\frac{{{a}}}{{{b}}}", rf"{sign}\dfrac{{{a}}}{{{b}}}",
                  rf"{sign}\tfrac{{{a}}}{{{b}}}", rf"\frac{{{sign}{a}}}{{{b}}}", f"{sign}({a}/{b})"]
        if a < 10 and b < 10:
            forms += [rf"{sign}\frac{a}{b}", rf"{sign}\frac {a}{b}"]
        if a > b:
            forms += [rf"{sign}{a // b}\frac{{{a % b}}}{{{b}}}", f"{sign}{a // b} {a % b}/{b}"]
    if b > 1 and terminates(number) and "only_fraction" not in row:
        text = decimal(size)
        forms += [sign + text, sign + text + "0", sign + text.removeprefix("0")]
        digits = text.replace(".", "").lstrip("0")
        if size < Fraction(1, 100):
            power = len(text) - 2 - len(digits) + 1
            mantissa = digits[0] + ("." + digits[1:] if digits[1:] else "")
            forms += [rf"{sign}{mantissa} \times 10^{{-{power}}}", f"{sign}{mantissa}e-{power}"]
    return forms + [form.replace("-", "−") for form in forms[:2] if sign]


def unit_forms(row: dict) -> list[str]:
    """A number with its unit, spelled in other ways, and bare where the question names it."""
    gold, (number, unit) = row["gold"], bare_unit(row)
    forms = [number, f"${number}$"] if "drop_unit" in row else []
    dash, size = ("-", number[1:]) if number.startswith("-") else ("", number)
    clean = dash + re.sub(r"\\!", "", size)
    if row["type"] == "currency":
        forms += [f"{dash}${size}", f"{number} dollars", rf"{dash}\${clean.lstrip('-')}",
                  rf"{number}\text{{ dollars}}"]
    elif row["type"] == "degrees":
        forms += [f"{number}°", rf"{number}^{{\circ}}", rf"{number}^\circ", f"{number} degrees",
                  rf"{number}\text{{ degrees}}"]
    elif row["type"] == "percent":
        forms += [f"{number}%", f"{number} %", f"{number} percent", rf"{number}\ \%"]
    elif row["type"] == "unit":
        words = re.sub(r"\s+", " ", plain(gold.removeprefix(number))).strip(" .")
        forms += [f"{number} {words}", rf"{number}\ \text{{{words}}}", rf"${number}$ {words}"]
        for old, new in [("square ", "sq "), ("cm^2", "cm²"), ("cm^2", "square centimeters"),
                         ("km", "kilometers"), ("mph", "miles per hour"), ("gm", "grams"),
                         ("inches^2", "square inches"), ("minutes", "min")]:
            forms += [f"{number} {words.replace(old, new)}"] if old in words else []
    elif "unit" in row:
        forms += [f"{gold} {row['unit']}", rf"{gold}\text{{ {row['unit']}}}",
                  f"The answer is {gold} {row['unit']}."]
        forms += [rf"\${gold}", f"${gold}"] if row["unit"] == "dollars" else []
    return forms


def interval_forms(gold: str) -> list[str]:
    """Other spellings of an interval or a union, inequalities included."""
    body = re.split(r"\\in(?!f)", gold)[-1].strip()
    parts = split(body, r"\cup")
    tight = re.sub(r"\\left|\\right|\s", "", body)
    forms = [rf"x \in {body}", tight.replace(r"\cup", r" \cup "), unicode(body), plain(body),
             re.sub(r"(?<!-)\\infty", r"+\\infty", body),
             r" \cup ".join(reversed(parts)), rf"\left{tight[:-1]}\right{tight[-1]}"]
    if any(r"\{" in part for part in parts) or (len(parts) > 1 and tight[0] == "\\"):
        return forms[:4]
    if len(parts) > 1:
        forms.pop()
    inequalities = []
    for part in parts:
        part = re.sub(r"\\left|\\right", "", part).strip()
        low, high = split(part[1:-1])
        left, right = r"\le" if part[0] == "[" else "<", r"\le" if part[-1] == "]" else "<"
        if "infty" in low:
            inequalities.append(f"x {right} {high}")
        elif "infty" in high:
            inequalities.append(f"x {left.replace('<', '>').replace('le', 'ge')} {low}")
        else:
            inequalities.append(f"{low} {left} x {right} {high}")
    text = r" \text{ or } ".join(inequalities)
    return forms + [text, plain(text).replace(r"\le", "<=").replace(r"\ge", ">=")]


def list_forms(gold: str) -> list[str]:
    """A list in other orders and joined in other ways; `a ± b` is two elements."""
    parts = split(gold)
    if r"\pm" in gold:
        parts = [gold.replace(r"\pm", sign) for sign in "+-"]
    back = parts[::-1]
    return [", ".join(parts), ",".join(back), " and ".join(back), rf"\{{{', '.join(parts)}\}}",
            r" \text{ and } ".join(parts), r" \text{ or } ".join(back), "; ".join(parts),
            ", ".join(parts[:-1]) + " and " + parts[-1], ", ".join(f"${part}$" for part in back),
            ", ".join(parts[:-1]) + ", and " + parts[-1], unicode(gold), plain(gold),
            " or ".join(f"x = {part}" for part in parts), "x = " + ", ".join(parts)]


def tuple_forms(gold: str) -> list[str]:
    tight = re.sub(r"\\left|\\right|\s", "", gold)
    return [tight.replace(r"\pi", r"\pi "), rf"\left{tight[:-1]}\right)", unicode(gold), plain(gold),
            tight.replace(",", ", "), f"P = {gold}", tight.replace(r"\frac", r"\dfrac")]


def matrix_forms(gold: str) -> list[str]:
    fractions = re.sub(r"(-?)(\d+)/(\d+)", r"\1\\frac{\2}{\3}", gold)
    body = gold.removeprefix(r"\begin{pmatrix}").removesuffix(r"\end{pmatrix}")
    columns = "c" * (body.split(r"\\")[0].count("&") + 1)
    return [gold.replace("pmatrix", "bmatrix"), fractions, re.sub(r"\s+", "", gold),
            rf"\left( \begin{{array}}{{{columns}}}{body}\end{{array}} \right)",
            rf"\left[ \begin{{array}}{{{columns}}}{body}\end{{array}} \right]", rf"A = {gold}"]


def text_forms(row: dict) -> list[str]:
    words = re.sub(r"\\text\{(.*)\}", r"\1", row["gold"])
    forms = [words, f"'{words}'"]
    forms += [rf"\{style}{{{words}}}" for style in ("text", "textbf", "mathrm")]
    if row["type"] == "choice":
        letter = words.strip("()")
        return forms + [letter, f"({letter})", f"{letter}.", f"{letter})",
                        rf"\textbf{{({letter})}}", f"The answer is ({letter})."]
    if row["type"] == "list_choice":
        letters = split(words)
        return forms + [", ".join(letters[::-1]), ",".join(letters), " and ".join(letters),
                        ", ".join(rf"\text{{{letter}}}" for letter in letters)]
    return forms + [words.lower(), words.upper(), words.capitalize(), f"The answer is {words}."]


def equation_forms(gold: str) -> list[str]:
    left, right = gold.split("=")
    minus = "".join(("-" + part if part[0] not in "+-" else part.translate({43: 45, 45: 43}))
                    for part in terms(right.strip()))
    forms = [f"{right} = {left}", gold.replace(" ", ""), f"{left} = {reordered(right.strip())}",
             plain(gold), unicode(gold)]
    return forms + ([f"{left} {minus} = 0"] if right.strip() != "0" else [])


def special_forms(row: dict) -> list[str]:
    """Types with a notation of their own."""
    gold, kind = row["gold"], row["type"]
    if kind == "base":
        digits, base = re.fullmatch(r"(-?\w+)_\{?(\d+)\}?", gold).groups()
        return [f"{digits}_{{{base}}}", f"{digits}_{base}", f"{digits} base {base}",
                rf"{digits}_{{\text{{{base}}}}}", f"{digits} (base {base})"]
    if kind == "ratio":
        return [gold.replace(":", " : "), gold.replace(":", " to "), gold.replace(":", r"\colon ")]
    if kind == "time":
        clock = re.sub(r"\\text\{(.*)\}", r"\1", gold)
        bare = clock.lower().replace(".", "")
        return [clock, bare, bare.upper(), bare.replace(" ", ""), bare.replace("m", ".m.")]
    if kind == "order":
        return [" > ".join(gold.split(" < ")[::-1]), gold.replace(" ", ""), gold.replace("<", r"\lt")]
    if kind == "set":
        return [r"\{-2, 1+\sqrt{5}, 1-\sqrt{5}\}", r"-2, 1 \pm \sqrt 5", "{1+√5, 1-√5, -2}"]
    if kind == "power":
        return ["1/2004!", r"\dfrac{1}{2004!}", "(2004!)^{-1}"]
    if kind == "assignment":
        name, right = (part.strip() for part in gold.split("="))
        return [f"{name}={right}", f"{name} = {right}", unicode(gold)] + [right] * ("bare_ok" in row)
    return []


def right_forms(row: dict) -> list[str]:
    """All right forms of a gold answer, without repetitions."""
    gold, kind = row["gold"], row["type"]
    forms = wrapped(gold)
    if kind in NUMERIC:
        forms += number_forms(row, value(gold)) + [rf"x = {gold}"]
    if kind in TERMS | {"trig"}:
        forms += [plain(gold), unicode(gold), gold.replace(r"\frac", r"\dfrac")]
    if kind in TERMS:
        forms += [reordered(gold), re.sub(r"(?<![a-z])\s", "", gold)]
    if kind == "expression":
        times = re.sub(r"(?<![\^{\d])(\d+)\s*(?=[a-z])", r"\1 \\cdot ", gold)
        forms += [f"y = {gold}", times]
    makers = {"interval": interval_forms, "list": list_forms, "list_pm": list_forms,
              "tuple": tuple_forms, "matrix": matrix_forms, "equation": equation_forms}
    if kind in makers:
        forms += makers[kind](gold)
    forms += text_forms(row) if kind in WORDS else []
    return list(dict.fromkeys(forms + unit_forms(row) + special_forms(row)))
