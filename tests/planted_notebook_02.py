"""Solutions of notebook 02's exercises: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import contextlib
import re
from collections import Counter
from decimal import Decimal
from fractions import Fraction

RIGHT, WRONG = {}, {}

# ---- format_reward(completion) -------------------------------------------------------------------

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
BLOCKS = r"<think>.*?</think>\s*<answer>.*?</answer>"


def once_each(completion):
    return all(completion.count(tag) == 1 for tag in TAGS)


def format_by_tags(completion):
    found = re.findall("</?(?:think|answer)>", completion)
    if found != TAGS:
        return 0.0
    before, _, between, _, after = re.split("</?(?:think|answer)>", completion)
    return 0.0 if (before + between + after).strip() else 1.0


def format_by_string_methods(completion):
    text = completion.strip()
    if not (once_each(text) and text.startswith("<think>") and text.endswith("</answer>")):
        return 0.0
    first, closed, second = text.partition("</think>")
    return float("<answer>" not in first and second.lstrip().startswith("<answer>"))


def format_by_pattern(completion):
    inside = r"(?:(?!</?think>|</?answer>).)*"
    pattern = rf"\s*<think>{inside}</think>\s*<answer>{inside}</answer>\s*"
    return 1 if re.fullmatch(pattern, completion, re.DOTALL) else 0


def format_by_unpacking(completion):
    thinking, answer = completion.split("</think>")
    return format_by_tags(f"{thinking}</think>{answer}")


RIGHT["format_reward"] = {
    "the list of tags, then the text around them": format_by_tags,
    "string methods": format_by_string_methods,
    "one pattern; returns the integers 1 and 0": format_by_pattern,
}
WRONG["format_reward"] = {
    "search without anchors: text outside passes": lambda completion: float(
        once_each(completion) and bool(re.search(BLOCKS, completion, re.DOTALL))
    ),
    "match: text after the answer passes": lambda completion: float(
        once_each(completion) and bool(re.match(r"\s*" + BLOCKS, completion, re.DOTALL))
    ),
    "MULTILINE: `$` ends at any line, so a line after the answer passes": lambda completion: float(
        once_each(completion)
        and bool(re.match(rf"\s*{BLOCKS}\s*$", completion, re.DOTALL | re.MULTILINE))
    ),
    "no DOTALL: thinking of two lines fails": lambda completion: float(
        once_each(completion) and bool(re.fullmatch(rf"\s*{BLOCKS}\s*", completion))
    ),
    "`.*` runs across blocks: repeated blocks pass": lambda completion: float(
        bool(re.fullmatch(rf"\s*{BLOCKS}\s*", completion, re.DOTALL))
    ),
    "tags counted, their order not looked at": lambda text: float(once_each(text)),
    "white space around the blocks fails": lambda completion: float(
        once_each(completion) and bool(re.fullmatch(BLOCKS, completion, re.DOTALL))
    ),
    "white space between the blocks fails": lambda text: format_by_tags(text) * ("</think><answer>" in text),
    "only the two ends are looked at": lambda completion: float(
        completion.strip().startswith("<think>") and completion.strip().endswith("</answer>")
    ),
    "a quarter of a point per tag": lambda text: format_by_tags(text) or sum(tag in text for tag in TAGS) / 4,
    "-1 for a bad format": lambda text: format_by_tags(text) or -1.0,
    "raises where a tag is missing": format_by_unpacking,
}

# ---- final_answer(completion) --------------------------------------------------------------------


def answers_in(completion, flags=re.DOTALL):
    return [text.strip() for text in re.findall("<answer>(.*?)</answer>", completion, flags)]


def answer_by_set(completion):
    distinct = set(answers_in(completion))
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


def answer_by_vote(completion):
    found = answers_in(completion)
    return Counter(found).most_common(1)[0][0] if found else None


def answer_greedy(completion):
    match = re.search("<answer>(.*)</answer>", completion, re.DOTALL)
    return match[1].strip() if match else None


def answer_on_one_line(completion):
    distinct = set(answers_in(completion, flags=0))
    return distinct.pop() if len(distinct) == 1 else None


RIGHT["final_answer"] = {
    "a set of all blocks": answer_by_set,
    "split and partition": answer_by_parts,
    "a loop over positions": answer_by_positions,
}
WRONG["final_answer"] = {
    "the first of several": lambda text: next(iter(answers_in(text)), None),
    "the last of several": lambda text: (answers_in(text) or [None])[-1],
    "the most frequent of several": answer_by_vote,
    "all of several, joined": lambda text: " or ".join(dict.fromkeys(answers_in(text))) or None,
    "greedy `.*` from the first tag to the last": answer_greedy,
    "no DOTALL: an answer on its own line is missed": answer_on_one_line,
    "raises where there is no answer": lambda completion: (
        answer_by_set(completion) if len(set(answers_in(completion))) > 1
        else re.search("<answer>(.*?)</answer>", completion, re.DOTALL)[1].strip()
    ),
    "an empty string instead of None": lambda text: answer_by_set(text) or "",
    "the last number of the text, tags or not": lambda completion: (
        answer_by_set(completion) or (re.findall(r"-?\d+", completion) or [None])[-1]
        if len(set(answers_in(completion))) < 2 else None
    ),
    "a block that is never closed passes": lambda text: answer_by_set(text + "</answer>"),
    "a list instead of the answer": lambda text: sorted(set(answers_in(text))) or None,
    "an endless loop": answer_without_end,
}  # fmt: skip

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


def consistency(words, is_target, counts=has_letter, empty=0.0):
    """The right share, with one part exchanged by each wrong solution."""
    judged = [bool(is_target(word)) for word in words if counts(word)]
    return sum(judged) / len(judged) if judged else empty


def latin_letter(word):
    return bool(re.search("[a-zA-Z]", word))


RIGHT["language_consistency"] = {
    "a list of judgements": lambda words, is_target: consistency(words, is_target),
    "a loop with two counters": consistency_in_a_loop,
    "filter": consistency_by_filter,
}
WRONG["language_consistency"] = {
    "numbers and signs count as words": lambda words, is_target: consistency(
        words, is_target, counts=lambda word: True
    ),
    "numbers counted above the line only": lambda words, is_target: (
        sum(map(bool, map(is_target, words))) / max(1, sum(map(has_letter, words)))
    ),
    "numbers counted below the line only": lambda words, is_target: (
        sum(bool(is_target(word)) for word in words if has_letter(word)) / max(1, len(words))
    ),
    "isalpha: words such as don't are dropped": lambda words, is_target: consistency(
        words, is_target, counts=str.isalpha
    ),
    "only a-z are letters: Chinese words are dropped": lambda words, is_target: consistency(
        words, is_target, counts=latin_letter
    ),
    "no words: divides by zero": lambda words, is_target: (
        sum(bool(is_target(word)) for word in words if has_letter(word)) / sum(map(has_letter, words))
    ),
    "no words: 1.0": lambda words, is_target: consistency(words, is_target, empty=1.0),
    "each distinct word counted once": lambda words, is_target: consistency(sorted(set(words)), is_target),
    "share of the other languages": lambda words, is_target: consistency(
        words, lambda word: not is_target(word)
    ),
    "1.0 only if all words are of the language": lambda words, is_target: float(
        consistency(words, is_target) == 1
    ),
    "in percent": lambda words, is_target: 100 * consistency(words, is_target),
    "a count instead of a share": lambda words, is_target: float(
        sum(bool(is_target(word)) for word in words if has_letter(word))
    ),
}

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


def same_by_eval(answer, gold, names):
    """What must not be done, with exact arithmetic."""
    exact = re.sub(r"(\d*\.?\d+)", r"Fraction('\1')", answer.strip())
    try:
        return bool(eval(exact, names) == Fraction(gold))
    except Exception:
        return False


def same_by_guarded_eval(answer, gold):
    guard = re.fullmatch(r"[\d+\-*/(). ]+", answer)
    return bool(guard) and same_by_eval(answer, gold, {"Fraction": Fraction})


def same_after_eval(answer, gold):
    with contextlib.suppress(Exception):
        eval(answer)  # to see whether it is an expression: by then it has been executed
        return same_value(answer, gold)
    return False


def same_or_unreadable(answer, gold):
    try:
        return Fraction(answer) == Fraction(gold)
    except (ValueError, ZeroDivisionError):
        return True


def same_or_raises_on_zero(answer, gold):
    try:
        return Fraction(answer) == Fraction(gold)
    except ValueError:
        return False


def same_by_cross_product(answer, gold):
    if not LITERAL.fullmatch(answer.strip()):
        return False
    (a, b), (c, d) = (map(Fraction, f"{text}/1".split("/")[:2]) for text in (answer, gold))
    return a * d == c * b


def same_number_inside(index):
    def same(answer, gold):
        found = re.findall(r"[+-]?(?:\d+/\d+|\d*\.?\d+)", answer)
        return bool(found) and same_value(found[index], gold)

    return same


RIGHT["safe_accuracy"] = {
    "a pattern, then exact fractions": same_value,
    "Fraction in a try": same_by_fractions,
    "parsed by hand into integers": same_by_integers,
}
WRONG["safe_accuracy"] = {
    "eval": lambda answer, gold: same_by_eval(answer, gold, {"Fraction": Fraction}),
    "eval without builtins": lambda answer, gold: same_by_eval(
        answer, gold, {"__builtins__": {}, "Fraction": Fraction}
    ),
    "evaluates first, looks at the text after": same_after_eval,
    "eval behind a list of characters: 3+4 is worked out": same_by_guarded_eval,
    "texts compared": lambda answer, gold: answer == gold,
    "texts compared after strip": lambda answer, gold: answer.strip() == gold.strip(),
    "the gold answer anywhere in the text": lambda answer, gold: (
        same_value(answer, gold) or gold.strip() in answer
    ),
    "the first number in the text: `7 or 8` passes": same_number_inside(0),
    "the last number in the text: `not 7` passes": same_number_inside(-1),
    "all but digits removed: a minus is lost": lambda answer, gold: (
        same_value(re.sub(r"[^\d/.]", "", answer), re.sub(r"[^\d/.]", "", gold))
    ),
    "spaces removed: `7 8` passes for 78": lambda answer, gold: same_value(answer.replace(" ", ""), gold),
    "whole numbers only": lambda answer, gold: (
        "/" not in answer and "." not in answer and same_value(answer, gold)
    ),
    "decimals, but no fractions": lambda answer, gold: "/" not in answer and same_value(answer, gold),
    "equal to two places: 0.33 passes for 1/3": lambda answer, gold: (
        value(answer) is not None and abs(value(answer) - value(gold)) < 0.005
    ),
    "cross product: 0/0 equals everything": same_by_cross_product,
    "raises on 1/0": same_or_raises_on_zero,
    "raises on words": lambda answer, gold: (
        Fraction(answer) == Fraction(gold) if not re.fullmatch(r".*/\s*0+\s*", answer) else False
    ),
    "the unreadable gets the benefit of the doubt": same_or_unreadable,
}
