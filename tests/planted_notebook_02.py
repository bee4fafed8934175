"""Solutions of notebook 02's exercises: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import contextlib
import re
from collections import Counter
from decimal import Decimal
from fractions import Fraction

from tests.planted_edits import edits

RIGHT, WRONG = {}, {}

# ---- format_reward(completion) -------------------------------------------------------------------

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
BLOCKS = r"<think>.*?</think>\s*<answer>(?!\s*</answer>).*?</answer>"


def once_each(completion):
    return all(completion.count(tag) == 1 for tag in TAGS)


def format_by_tags(completion):
    found = re.findall("</?(?:think|answer)>", completion)
    if found != TAGS:
        return 0.0
    before, _, between, answer, after = re.split("</?(?:think|answer)>", completion)
    return 0.0 if (before + between + after).strip() or not answer.strip() else 1.0


def format_by_string_methods(completion):
    text = completion.strip()
    if not (once_each(text) and text.startswith("<think>") and text.endswith("</answer>")):
        return 0.0
    first, closed, second = text.partition("</think>")
    says = second.strip().removeprefix("<answer>").removesuffix("</answer>").strip()
    return float("<answer>" not in first and second.lstrip().startswith("<answer>") and says != "")


def format_by_pattern(completion):
    inside = r"(?:(?!</?think>|</?answer>).)*"
    pattern = rf"\s*<think>{inside}</think>\s*<answer>(?!\s*</answer>){inside}</answer>\s*"
    return 1 if re.fullmatch(pattern, completion, re.DOTALL) else 0


def format_by_blocks(text):
    return float(once_each(text) and bool(re.fullmatch(rf"\s*{BLOCKS}\s*", text, re.DOTALL)))


RIGHT["format_reward"] = {
    "the list of tags, then the text around them": format_by_tags,
    "string methods": format_by_string_methods,
    "one pattern; returns the integers 1 and 0": format_by_pattern,
}
WRONG["format_reward"] = edits(format_by_blocks, {
    "search without anchors: text outside passes": ("fullmatch", "search"),
    "match: text after the answer passes": ("fullmatch", "match"),
    "MULTILINE: `$` ends at any line, so a line after the answer passes": (
        "fullmatch", "match", '*"', '*$"', "re.DOTALL", "re.DOTALL | re.MULTILINE"),
    "no DOTALL: thinking of two lines fails": (", re.DOTALL", ""),
    "`.*` runs across blocks: repeated blocks pass": ("once_each(text) and ", ""),
    "white space around the blocks fails": (r"\s*{BLOCKS}\s*", "{BLOCKS}"),
    "an empty answer passes": ("{BLOCKS}", r"<think>.*?</think>\s*<answer>.*?</answer>"),
}) | {
    "tags counted, their order not looked at": lambda text: float(once_each(text)),
    "white space between the blocks fails": lambda text: format_by_tags(text) * ("</think><answer>" in text),
    "only the two ends are looked at": lambda text:
        float(bool(re.fullmatch(r"\s*<think>.*</answer>\s*", text, re.DOTALL))),
    "a quarter of a point per tag": lambda text: format_by_tags(text) or sum(tag in text for tag in TAGS) / 4,
    "-1 for a bad format": lambda text: format_by_tags(text) or -1.0,
    "raises where a tag is missing": lambda text: text.index("</think>") and format_by_tags(text),
}  # fmt: skip

# ---- final_answer(completion) --------------------------------------------------------------------


def answers_in(text, inside=".*?", flags=re.DOTALL):
    return [text.strip() for text in re.findall(f"<answer>({inside})</answer>", text, flags)]


def answer_by_set(text):
    distinct = set(answers_in(text))
    return distinct.pop() if len(distinct) == 1 else None


def answer_by_parts(completion):
    found = None
    for part in completion.split("<answer>")[1:]:
        text, closed, _ = part.partition("</answer>")
        if not closed:
            continue
        if found is not None and text.strip() != found:
            return None
        found = text.strip()
    return found


def answer_by_positions(completion):
    start, found = completion.find("<answer>"), []
    while start >= 0:
        end = completion.find("</answer>", start)
        if end < 0:
            break
        found.append(completion[start + len("<answer>") : end].strip())
        start = completion.find("<answer>", end)
    return found[0] if found and all(text == found[0] for text in found) else None


def answer_without_end(completion):
    found = set()
    while "<answer>" in completion:  # nothing makes the text shorter
        found.add(completion.split("<answer>")[1].split("</answer>")[0].strip())
    return found.pop() if len(found) == 1 else None


RIGHT["final_answer"] = {
    "a set of all blocks": answer_by_set, "split and partition": answer_by_parts,
    "a loop over positions": answer_by_positions,
}  # fmt: skip
WRONG["final_answer"] = {
    "the first of several": lambda text: next(iter(answers_in(text)), None),
    "the last of several": lambda text: (answers_in(text) or [None])[-1],
    "the most frequent of several": lambda text: (Counter(answers_in(text)).most_common(1) or [[None]])[0][0],
    "all of several, joined": lambda text: " or ".join(dict.fromkeys(answers_in(text))) or None,
    "an empty string instead of None": lambda text: answer_by_set(text) or "",
    "a block that is never closed passes": lambda text: answer_by_set(text + "</answer>"),
    "a list instead of the answer": lambda text: sorted(set(answers_in(text))) or None,
    "an endless loop": answer_without_end,
} | edits(answer_by_set, {
    "greedy `.*` from the first tag to the last": ("in(text)", "in(text, '.*')"),
    "no DOTALL: an answer on its own line is missed": ("in(text)", "in(text, flags=0)"),
    "raises where there is no answer": ("len(distinct) == 1", "len(distinct) < 2"),
    "the last number of the text, tags or not": ("in(text)", r"in(text) or re.findall(r'-?\d+', text)[-1:]"),
})  # fmt: skip

# ---- language_consistency(words, is_target) ------------------------------------------------------


def has_letter(word):
    return any(character.isalpha() for character in word)


def consistency_in_a_loop(words, is_target):
    own = spoken = 0
    for word in words:
        if re.search(r"[^\W\d_]", word):
            spoken += 1
            own += bool(is_target(word))
    return own / spoken if spoken else 0.0


def consistency_by_filter(words, is_target):
    spoken = list(filter(has_letter, words))
    return len(list(filter(is_target, spoken))) / max(1, len(spoken))


def consistency(words, is_target):
    judged = [bool(is_target(word)) for word in words if has_letter(word)]
    return sum(judged) / len(judged) if judged else 0.0


RIGHT["language_consistency"] = {
    "a list of judgements": consistency, "a loop with two counters": consistency_in_a_loop,
    "filter": consistency_by_filter,
}  # fmt: skip
WRONG["language_consistency"] = edits(consistency, {
    "numbers and signs count as words": (" if has_letter(word)", ""),
    "numbers counted above the line only": ("sum(judged)", "sum(bool(is_target(word)) for word in words)"),
    "numbers counted below the line only": ("/ len(judged)", "/ len(words)"),
    "isalpha: words such as don't are dropped": ("has_letter(word)", "word.isalpha()"),
    "only a-z are letters: Chinese words are dropped": ("has_letter(word)", "re.search('[a-zA-Z]', word)"),
    "no words: divides by zero": (" if judged else 0.0", ""),
    "no words: 1.0": ("else 0.0", "else 1.0"),
    "each distinct word counted once": ("in words", "in sorted(set(words))"),
    "share of the other languages": ("bool(", "not ("),
    "1.0 only if all words are of the language": ("sum(judged) / len(judged)", "float(all(judged))"),
    "in percent": ("sum(judged)", "100 * sum(judged)"),
    "a count instead of a share": ("sum(judged) / len(judged)", "float(sum(judged))"),
})  # fmt: skip

# ---- safe_accuracy(answer, gold) -----------------------------------------------------------------

LITERAL = re.compile(r"[+-]?(?:\d+/\d+|\d+(?:\.\d+)?|\.\d+)", re.ASCII)


def value(text):
    """The number that `text` is, or None: no search, no evaluation."""
    text = text.strip()
    if not LITERAL.fullmatch(text):
        return None
    top, _, bottom = text.partition("/")
    return Fraction(top) / int(bottom or 1) if int(bottom or 1) else None


def same_value(answer, gold):
    return value(answer) is not None and value(answer) == value(gold)


def same_by_fractions(answer, gold):
    try:
        return Fraction(answer) == Fraction(gold)
    except (ValueError, ZeroDivisionError):
        return False


def same_by_integers(answer, gold):
    def lowest_terms(text):
        top, bottom = text.split("/") if "/" in text else (text, "1")
        number = Decimal(top) if "." in top else int(top)
        return (Fraction(number) / int(bottom)).as_integer_ratio()

    try:
        return lowest_terms(answer) == lowest_terms(gold)
    except (ArithmeticError, ValueError):
        return False


def same_by_eval(answer, gold, names={"Fraction": Fraction}):
    """What must not be done, with exact arithmetic."""
    exact = re.sub(r"(\d*\.?\d+)", r"Fraction('\1')", answer.strip())
    try:
        return bool(eval(exact, names) == Fraction(gold))
    except Exception:
        return False


def same_after_eval(answer, gold):
    with contextlib.suppress(Exception):
        eval(answer)  # to see whether it is an expression: by then it has been executed
        return same_value(answer, gold)
    return False


def same_by_cross_product(answer, gold):
    if not LITERAL.fullmatch(answer.strip()):
        return False
    (a, b), (c, d) = (map(Fraction, f"{text}/1".split("/")[:2]) for text in (answer, gold))
    return a * d == c * b


def numbers_in(text):
    return re.findall(r"[+-]?(?:\d+/\d+|\d*\.?\d+)", text) or [""]


RIGHT["safe_accuracy"] = {
    "a pattern, then exact fractions": same_value, "Fraction in a try": same_by_fractions,
    "parsed by hand into integers": same_by_integers,
}  # fmt: skip
WRONG["safe_accuracy"] = {
    "eval": lambda answer, gold: same_by_eval(answer, gold),
    "eval without builtins": lambda a, b: same_by_eval(a, b, {"__builtins__": {}, "Fraction": Fraction}),
    "evaluates first, looks at the text after": same_after_eval,
    "eval behind a list of characters: 3+4 is worked out": lambda answer, gold:
        bool(re.fullmatch(r"[\d+\-*/(). ]+", answer)) and same_by_eval(answer, gold),
    "texts compared": lambda answer, gold: answer == gold,
    "texts compared after strip": lambda answer, gold: answer.strip() == gold.strip(),
    "the gold answer anywhere in the text": lambda answer, b: same_value(answer, b) or b.strip() in answer,
    "the first number in the text: `7 or 8` passes": lambda a, b: same_value(numbers_in(a)[0], b),
    "the last number in the text: `not 7` passes": lambda a, b: same_value(numbers_in(a)[-1], b),
    "all but digits removed: a minus is lost": lambda *two:
        same_value(*(re.sub(r"[^\d/.]", "", x) for x in two)),
    "spaces removed: `7 8` passes for 78": lambda answer, gold: same_value(answer.replace(" ", ""), gold),
    "whole numbers only": lambda answer, gold: not {"/", "."} & set(answer) and same_value(answer, gold),
    "decimals, but no fractions": lambda answer, gold: "/" not in answer and same_value(answer, gold),
    "equal to two places: 0.33 passes for 1/3": lambda answer, gold:
        value(answer) is not None and abs(value(answer) - value(gold)) < 0.005,
    "cross product: 0/0 equals everything": same_by_cross_product,
} | edits(same_by_fractions, {
    "raises on 1/0": ("(ValueError, ZeroDivisionError)", "ValueError"),
    "raises on words": ("(ValueError, ZeroDivisionError)", "ZeroDivisionError"),
    "the unreadable gets the benefit of the doubt": ("return False", "return True"),
})  # fmt: skip
