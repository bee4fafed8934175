"""Ways to write a wrong answer, none of which a grader may accept: near misses and tricks."""

import re

from grader_forms import NUMERIC, TERMS, WORDS, bare_unit, decimal, split, terminates, value

NEGATIONS = [
    "not {}", "The answer is not {}.", "It isn't {}", "It is not {}", "definitely not {}",
    "anything but {}", "{} is wrong", "{} is not the answer", r"\neq {}", r"\text{{not }} {}",
    "≠ {}", "no {}", "never {}", "It cannot be {}", "不是 {}", "ce n'est pas {}", "x ≠ {}",
    "The answer isn’t {}.", r"x \ne {}", "{} is incorrect", r"\lnot {}", "!= {}", "neither {} nor 1",
]
HEDGES = [
    "maybe {}", "probably {}", "approximately {}", "about {}", "roughly {}", "I think {}", "{}?",
    "could be {}", "around {}", r"\approx {}", "≈ {}", r"\sim {}", "{} or so", "possibly {}",
    "I guess {}", "perhaps {}", "可能是 {}", "peut-être {}", "{} (not sure)", "nearly {}", "{}-ish",
    "The answer might be {}.", "{} or something else", "likely {}", "almost {}", "{}...", "~{}",
    "The answer is approximately {}.", "close to {}", "at least {}", "more than {}", "up to {}",
]
TWO = [
    "{} or {other}", "{} and {other}", "{}, {other}", "{other}, {}", "{}; {other}", "{}\n{other}",
    "either {} or {other}", r"\boxed{{{}}} \boxed{{{other}}}", "{other} {}", "{} = {other}",
    "{other}. No, {}", "{}. Wait, {other}", r"{} \text{{ or }} {other}", "${}$ ${other}$",
    "{} | {other}", "{} (or {other})", "{other} / {}", "first {other}, then {}",
    "{} but maybe {other}", "{},{other}",
]
EMPTY = ["", "  ", "$$", r"\boxed{}", ".", "?", "answer", "The answer is", "...", r"\text{}", "x", "()"]
STUFFED = ["0 1 2 3 4 5 6 7 8 9 {}", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, {}", "any number", "A B C D E {}"]


def bump(text: str, index: int) -> str:
    """The text with one of its digits (0 = first, -1 = last) raised by one; 9 becomes 8."""
    place = [match.start() for match in re.finditer(r"\d", text)][index]
    digit = int(text[place])
    return text[:place] + str(digit + 1 if digit < 9 else 8) + text[place + 1:]


def other_sign(text: str) -> list[str]:
    """The text with its leading sign turned; nothing for a leading zero."""
    head = re.match(r"(\\text\{|\\left|[(\[]|\\begin\{pmatrix\}|\\\$|\\\{|\s)*", text).group()
    rest = text.removeprefix(head)
    if re.match(r"0(?!\.)", rest):
        return []
    return [head + (rest[1:].lstrip() if rest[0] in "-+" else "-" + rest)]


def near_number(gold: str) -> list[str]:
    """Numbers that look alike: digits, point, inverse, scale, a unit that nobody asked for."""
    number = value(gold)
    a, b = number.numerator, number.denominator
    forms = [f"{a + b}/{b}", f"{a - b}/{b}", f"{gold}1", f"{gold} + 1", f"2 + {gold}", f"{gold}.5",
             f"{gold} cm", rf"{gold}\text{{ apples}}", f"{gold} million", f"{gold}+", f"{gold} x"]
    if number:
        forms += [f"{-a}/{b}", f"{gold}%", f"{gold}°", f"> {gold}", rf"\geq {gold}", f"{gold} ± 1",
                  f"{a * 10}/{b}", rf"{gold} \cdot 3", f"{gold} dozen", f"{gold} thousand",
                  f"{gold}e3", f"0x{gold}", f"{gold}_7", f"{a}/{b}{b}" if b > 1 else f"{a}/7"]
    if number and abs(a) != b:
        forms += [f"{b}/{a}", rf"\sqrt{{{gold}}}", f"{gold}^2", f"{gold}²"]
    if b > 1 and terminates(number):
        text = decimal(number)
        forms += [text + "1", decimal(number * 10), text.rstrip("0") + "3", f"{gold}!"]
    elif b > 1:
        forms += [f"{float(number):.4f}", f"{float(number):.2f}"]
    return forms


def near_unit(row: dict) -> list[str]:
    """The right number with another unit or scale."""
    number, _ = bare_unit(row)
    others = ["kilograms", "seconds", "light years", "thousand", "m^3", r"\text{ bananas}",
              f"million {row.get('unit', '')}"]
    if row["type"] == "currency":
        others += ["euros", "cents", r"\%"]
    elif row["type"] == "degrees":
        others += ["radians", "rad", r"\%", "meters"]
    elif row["type"] == "percent":
        others += ["dollars", "°"]
    elif r"cm}^2" in row["gold"]:
        others += ["cm", "cm^3", "m^2", "square meters"]
    elif "square" in row["gold"]:
        others += ["cubic inches", "inches", "feet"]
    forms = [f"{number} {other}" for other in others]
    forms += [f"€{number}", f"£{number}"] if row["type"] == "currency" else []
    forms += [f"${number}"] if row["type"] in {"degrees", "percent"} else []
    return forms + ([decimal(value(number) / 100) + "%"] if row["type"] == "percent" else [])


def turned_brackets(body: str) -> list[str]:
    """The intervals with one bracket of a finite end turned from open to closed or back."""
    forms, turn = [], {"[": "(", "(": "[", "]": ")", ")": "]"}
    for i, char in enumerate(body):
        opening = char in "(["
        depth = sum((c in "([") - (c in ")]") for c in body[:i]) - (char in ")]")
        end = body[i + 1:].split(",")[0] if opening else body[:i].split(",")[-1]
        if char in turn and not depth and "infty" not in end:
            forms.append(body[:i] + turn[char] + body[i + 1:])
    return forms


def near_interval(gold: str) -> list[str]:
    body = re.split(r"\\in(?!f)", gold)[-1].strip()
    parts = split(body, r"\cup")
    forms = turned_brackets(body)
    if len(parts) > 1:
        forms += [body.replace(r"\cup", r"\cap"), parts[0], parts[-1]]
    else:
        inner = re.sub(r"\\left|\\right", "", body).strip()[1:-1]
        forms += [inner, rf"\{{{inner}\}}", inner.split(",")[0]]
    if "infty" not in body:
        forms += [rf"{body} \cup [1000, 1001]", rf"{body} \cup \{{1000\}}"]
    return forms + [r"(-\infty, \infty)", r"\emptyset", rf"x \notin {body}"]


def near_sequence(row: dict) -> list[str]:
    """Lists and tuples: an element missing, added, changed; other brackets; another order."""
    gold, pair = row["gold"], row["type"] == "tuple"
    inner = re.sub(r"\\left|\\right|\s", "", gold)[1:-1] if pair else gold
    parts = split(inner)
    changed = [parts[:-1], parts[1:], parts + ["77"], parts + parts[:1], ["77"] + parts[1:],
               parts[:-1] + [f"{parts[-1]} + 1"]]
    changed += [[f"-({parts[0]})"] + parts[1:]] if parts[0] != "0" else []
    changed += [parts[::-1]] if pair and parts != parts[::-1] else []
    forms = [", ".join(items) for items in changed]
    if pair:
        forms = [f"({form})" for form in forms] + [rf"\{{{inner}\}}", f"({inner}]"]
    else:
        forms.append(f"({inner})")
    return forms + [f"[{inner}]", " + ".join(parts), r" \cdot ".join(parts), f"{gold}, 78"]


def near_matrix(gold: str) -> list[str]:
    body = gold.removeprefix(r"\begin{pmatrix}").removesuffix(r"\end{pmatrix}")
    rows = [split(line, "&") for line in body.split(r"\\")]
    turned = [list(column) for column in zip(*rows)]
    changed = [rows[:-1], rows + rows[-1:], [*rows[:-1], ["77"] * len(rows[0])],
               [[*line, "0"] for line in rows]]
    changed += [new for new in (turned, rows[::-1]) if new != rows]
    forms = [r" \\ ".join(" & ".join(line) for line in lines) for lines in changed]
    forms = [rf"\begin{{pmatrix}} {form} \end{{pmatrix}}" for form in forms]
    return forms + [gold.replace("pmatrix", "vmatrix"), body, f"2{gold}", f"-{gold}", f"{gold}^2"]


def near_words(row: dict) -> list[str]:
    words = re.sub(r"\\text\{(.*)\}", r"\1", row["gold"])
    if row["type"] == "choice":
        one = words.strip("()")
        two = "B" if one != "B" else "A"
        return [two, f"({two})", f"{one} or {two}", f"{one}{two}", f"({one})({two})", "ABCDE", "5",
                f"{one}, {two}", f"{one} and {two}", f"not {one}", f"all but {one}", f"{one}1"]
    if row["type"] == "list_choice":
        letters = split(words)
        changed = [letters[:-1], letters + ["Z"], letters[:-1] + ["Z"], letters[:1], letters * 2]
        return [", ".join(items) for items in changed]
    return [f"{words}s", words[:-1], f"un{words}", f"not {words}", f"{words} or Zoe", "Zoe", "5",
            f"{words} Zoe", f"neither {words}", f"{words}, Zoe", f"{words} and Zoe"]


def near_terms(row: dict) -> list[str]:
    """Expressions: a term more, a factor, an inverse, a lost root, another sign or letter."""
    gold = row["gold"]
    forms = [f"{gold} + 1", f"{gold} - 2", f"2({gold})", f"-({gold})", f"{gold} + C",
             rf"\frac{{1}}{{3 + {gold}}}", gold.replace(r"\sqrt", ""), gold.replace(r"\pi", "3.14")]
    forms += [gold.replace("+", "-", 1)] if "+" in gold else []
    forms += ["+".join(gold.rsplit("-", 1))] if "-" in gold[1:] else []
    if row["type"] == "expression":
        letter = re.search(r"(?<![\\a-z])[a-zA-Z](?![a-z])", gold)
        forms += [gold.replace(letter.group(), "w")] if letter and "\\" not in gold else []
        forms += [f"{gold} = 0", f"{gold} > 0"]
    return [form for form in forms if form != gold]


def near_relation(row: dict) -> list[str]:
    """Equations, assignments and orders: another relation, another side, another name."""
    gold = row["gold"]
    if row["type"] == "order":
        return [gold.replace("<", ">"), "f(1) < f(2) < f(4)", "f(2) < f(1)", "f(2) < f(1) = f(4)"]
    left, right = (part.strip() for part in gold.split("="))
    forms = [f"{left} {sign} {right}" for sign in (r"\neq", "<", r"\ge")]
    forms += [f"{left} = {right} + 1", f"{left} = -({right}) - 5", left, f"{gold} = 99"]
    if row["type"] == "assignment":
        forms += [f"w = {right}", f"{left} = 77", f"{left} = {right}, {left} = 77"]
    return forms


def near_special(row: dict) -> list[str]:
    """Types with a notation of their own."""
    gold, kind = row["gold"], row["type"]
    if kind == "base":
        digits, base = re.fullmatch(r"(-?\w+)_\{?(\d+)\}?", gold).groups()
        return [f"{digits}_{{{int(base) + 1}}}", f"{digits}0_{{{base}}}", f"{base}_{{{digits}}}",
                f"{digits} base 2"]
    if kind in {"ratio", "time"}:
        a, b = re.search(r"(\d+):(\d+)", gold).groups()
        changed = [f"{b}:{a}", f"{a}:{b}:1", f"{a}{b}", f"{a}:{b}0", a]
        swaps = [("PM", "AM"), ("p.m.", "a.m."), ("a.m.", "p.m.")] if kind == "time" else []
        return [gold.replace(f"{a}:{b}", new) for new in changed] + \
            [gold.replace(old, new) for old, new in swaps if old in gold]
    if kind == "list_pm":
        return [gold.replace(r"\pm", sign) for sign in ("+", "-", r"\cdot")] + [f"-({gold})"]
    if kind == "set":
        return [r"\{1\pm\sqrt{5}\}", r"\{1+\sqrt{5},-2\}", r"\{1\pm\sqrt{5},2\}", r"(1\pm\sqrt{5},-2)"]
    if kind == "power":
        return [r"\frac{1}{2006!}", r"\frac{1}{2004}", "0", r"\frac{2}{2004!}", r"\frac{1}{2003!}"]
    if kind == "trig":
        swap = gold.replace(r"\cos", r"\sin") if "cos" in gold else r"\cos 3x"
        return [swap, f"{gold} + 1", f"-({gold})", f"2{gold}"] + \
            ([re.sub(r"\^\{?\\circ\}?", "", gold)] if "circ" in gold else [])
    return []


def wrong_forms(row: dict) -> list[str]:
    """All wrong forms of a gold answer, without repetitions; none of them equals it."""
    gold, kind = row["gold"], row["type"]
    digits = len(re.findall(r"\d", gold))
    other = bump(gold, -1) if digits else "Zoe" if kind in WORDS else "17"
    forms = [pattern.format(gold) for pattern in NEGATIONS + HEDGES + STUFFED]
    forms += [pattern.format(gold, other=other) for pattern in TWO] + EMPTY
    forms += [bump(gold, place) for place in (-1, 0, digits // 2)] if digits else []
    if kind in NUMERIC | TERMS | {"tuple", "list", "matrix", "unit", "degrees", "percent", "base"}:
        forms += other_sign(gold)
    forms += near_number(gold) if kind in NUMERIC else []
    if kind in {"currency", "degrees", "percent", "unit"} or "unit" in row:
        forms += near_unit(row)
    forms += near_words(row) if kind in WORDS else []
    forms += near_terms(row) if kind in TERMS else []
    forms += near_interval(gold) if kind == "interval" else []
    forms += near_sequence(row) if kind in {"list", "tuple"} else []
    forms += near_matrix(gold) if kind == "matrix" else []
    forms += near_relation(row) if kind in {"equation", "assignment", "order"} else []
    return list(dict.fromkeys(forms + near_special(row)))
