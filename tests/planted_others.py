"""Solutions of the exercises of lessons 00 and 03 to 11 whose check came last: right ones in two styles,
wrong ones as learners write them."""

import itertools
import math
import re
from collections import Counter
from fractions import Fraction
from statistics import fmean

import numpy as np
import torch
from tests.planted_edits import edits
from tests.planted_notebook_01 import centered, population_std
from tests.planted_notebook_02 import answer_by_set, consistency, format_by_tags, same_by_eval, same_value
from tests.planted_notebook_03 import rate
from tests.planted_notebook_10 import value as tree

from r1lab.world.words import NAMES

RIGHT, WRONG = {}, {}


def pass_at_1(correct):
    shares = [sum(answers) / len(answers) for answers in correct]
    return sum(shares) / len(shares)


RIGHT["pass_at_1"] = {
    "shares, then their mean": pass_at_1,
    "means of arrays": lambda correct: np.mean([np.mean(answers) for answers in correct]),
}
WRONG["pass_at_1"] = edits(pass_at_1, {
    "all answers alike": ("sum(shares) / len(shares)", "sum(map(sum, correct)) / sum(map(len, correct))"),
    "one is enough": ("sum(answers) / len(answers)", "float(any(answers))"),
    "all must be right": ("sum(answers) / len(answers)", "float(all(answers))"),
    "the first answer": ("sum(answers) / len(answers)", "float(answers[0])"),
    "the last answer": ("sum(answers) / len(answers)", "float(answers[-1])"),
    "the sum": ("/ len(shares)", "/ 1"),
    "whole shares": ("sum(answers) / len", "sum(answers) // len"),
    "the wrong ones": ("return ", "return 1 - "),
    "a list of shares": ("return sum(shares) / len(shares)", "return shares"),
    "as many answers as the first question has": ("/ len(answers)", "/ len(correct[0])"),
    "the median": ("sum(shares) / len(shares)", "sorted(shares)[len(shares) // 2]"),
    "in percent": ("return ", "return 100 * "),
})  # fmt: skip


def says_wait(prompts, completions, **columns):
    return [float("wait" in completion.split()) for completion in completions]


RIGHT["says_wait"] = {
    "split": says_wait,
    "a pattern, True and False": lambda prompts, completions, **columns:
        [bool(re.search(r"(?<!\S)wait(?!\S)", text)) for text in completions],
}  # fmt: skip
WRONG["says_wait"] = edits(says_wait, {
    "a part of the text": ("completion.split()", "completion"),
    "split at spaces alone": (".split()", ".split(' ')"),
    "split at lines alone": (".split()", ".splitlines()"),
    "the prompt, too": ("in completion.split()", "in ''.join(prompts + [completion]).split()"),
    "one number": ("return [", "return sum(", "completions]", "completions)"),
    "a count": ('float("wait" in completion.split())', 'float(completion.split().count("wait"))'),
    "the beginning": ('"wait" in completion.split()', 'completion.startswith("wait")'),
    "spaces around": ('"wait" in completion.split()', '" wait " in completion'),
    "a beginning of a word": ('"wait" in completion.split()', r're.search(r"\bwait", completion) != None'),
    "letters of a-z alone": ("completion.split()", "re.findall('[a-z]+', completion)"),
    "only the first completion": ("in completions]", "in completions[:1]]"),
    "0 for all if one has none": ("completion.split()", "completion.split() and 'wait' in completions[0]"),
})  # fmt: skip


def silent_share(p, G):
    return p**G + (1 - p) ** G


RIGHT["silent_share"] = {
    "two powers": silent_share,
    "products": lambda p, G: math.prod([p] * G) + math.prod([1 - p] * G),
}
WRONG["silent_share"] = edits(silent_share, {
    "all right alone": (" + (1 - p) ** G", ""),
    "all wrong alone": ("p**G + ", ""),
    "their product": (" + (1 - p)", " * (1 - p)"),
    "the opposite": ("return ", "return 1 - "),
    "an answer too few": ("p**G + (1 - p) ** G", "p ** (G - 1) + (1 - p) ** (G - 1)"),
    "an answer too many": ("p**G + (1 - p) ** G", "p ** (G + 1) + (1 - p) ** (G + 1)"),
    "linear": ("p**G + (1 - p) ** G", "max(0, 1 - p * G)"),
    "pairs": ("p**G + (1 - p) ** G", "p**2 + (1 - p) ** 2"),
    "a group of 16": ("p**G + (1 - p) ** G", "p**16 + (1 - p) ** 16"),
    "the larger": ("p**G + (1 - p) ** G", "max(p**G, (1 - p) ** G)"),
    "the logarithm of 0": ("p**G", "math.exp(G * math.log(p))"),
})  # fmt: skip


def translate(text, table):
    def word(match):
        return table.get(match[0], match[0])

    return re.sub(r"[a-zA-Z]+|[\u4e00-\u9fff]", word, text)


def translate_in_a_loop(text, table):
    pieces = []
    for latin, other in itertools.groupby(text, lambda letter: letter.isascii() and letter.isalpha()):
        pieces += ["".join(other)] if latin else [*other]
    return "".join(table.get(piece, piece) for piece in pieces)


RIGHT["translate"] = {"a function for each word": translate, "runs of letters": translate_in_a_loop}


def translate_by_replace(text, table):
    for one, other in table.items():
        text = text.replace(one, other)
    return text


def translate_by_patterns(text, table):
    for one, other in table.items():
        text = re.sub(rf"(?<![a-zA-Z]){one}(?![a-zA-Z])", other, text)
    return text


WRONG["translate"] = {
    "parts of words, one key after another": translate_by_replace,
    "whole words, one key after another": translate_by_patterns,
} | edits(translate, {
    "small letters alone": ("a-zA-Z", "a-z"),
    "no Chinese": (r"|[\u4e00-\u9fff]", ""),
    "several Chinese characters are a word": (r"\u9fff]", r"\u9fff]+"),
    "no Latin": ("[a-zA-Z]+|", ""),
    "single letters": ("[a-zA-Z]+", "[a-zA-Z]"),
    "others are dropped": ("match[0], match[0]", "match[0], ''"),
    "split at white space": (
        r're.sub(r"[a-zA-Z]+|[\u4e00-\u9fff]", word, text)',
        '" ".join(table.get(w, w) for w in text.split())'),
    "white space made one": ("word, text)", "word, ' '.join(text.split()))"),
    "stripped": ("word, text)", "word, text.strip())"),
    "backwards": ("table.get", "{b: a for a, b in table.items()}.get"),
    "case ignored": ("table.get(match[0]", "table.get(match[0].lower()"),
    "the first word": ("word, text)", "word, text, count=1)"),
    "spaces around": ("table.get(match[0], match[0])", "table.get(match[0], match[0]) + ' '"),
})  # fmt: skip


def completion_mask(prompt_lengths, ends, width):
    places = torch.arange(width)
    return (places >= prompt_lengths[:, None]) & (places < ends[:, None])


def mask_row_by_row(prompt_lengths, ends, width):
    mask = torch.zeros(len(ends), width, dtype=torch.bool)
    for row, (start, end) in enumerate(zip(prompt_lengths, ends)):
        mask[row, start:end] = True
    return mask


RIGHT["completion_mask"] = {"two comparisons": completion_mask, "row by row": mask_row_by_row}
WRONG["completion_mask"] = edits(completion_mask, {
    "the prompt, too": ("(places >= prompt_lengths[:, None]) & ", ""),
    "the padding, too": (" & (places < ends[:, None])", ""),
    "one token late": (">=", ">"),
    "one token too many": ("< ends", "<= ends"),
    "shifted": ("torch.arange(width)", "torch.arange(width) + 1"),
    "inverted": ("return ", "return ~(", "[:, None])\n", "[:, None]))\n"),
    "or": (" & ", " | "),
    "ends count from the prompt": ("ends[:, None]", "(prompt_lengths + ends)[:, None]"),
    "the first row's prompt": ("prompt_lengths[:, None]", "prompt_lengths[0]"),
    "the longest text's end": ("ends[:, None]", "ends.max()"),
    "a list of lengths": ("return ", "return ends - prompt_lengths  #"),
    "transposed": ("[:, None])\n", "[:, None])).T\n", "return ", "return ("),
    "as wide as the longest": ("arange(width)", "arange(int(ends.max()))"),
})  # fmt: skip


def worth_mixing(R, weight):
    return 1 + weight * R > weight


RIGHT["worth_mixing"] = {
    "two sums": worth_mixing, "solved for the weight": lambda R, weight: weight * (1 - R) < 1,
}  # fmt: skip
WRONG["worth_mixing"] = edits(worth_mixing, {
    "the other way": ("> weight", "< weight"),
    "the weight forgotten": ("weight * R", "R"),
    "accuracy forgotten": ("1 + ", ""),
    "weight 1 assumed": ("1 + weight * R > weight", "1 + R > 1"),
    "the difference as a number": (" > ", " - "),
    "always": ("return ", "return True or "),
    "never": ("return ", "return False and "),
    "at most 5": ("return ", "return weight < 5 and "),
    "half consistent": ("1 + weight * R > weight", "R > 0.5"),
    "both right": ("> weight", "> 1 + weight"),
    "accuracy weighs 2": ("1 + weight", "2 + weight"),
    "divided": ("weight * R", "R / max(weight, 1e-9)"),
    "a weight of more than 1": ("> weight", "> max(1, weight)"),
})  # fmt: skip


def best_of_three(weight):
    group = [1 + weight * 0.6, 1 + weight * 0.9, weight * 1.0]
    return max(range(3), key=group.__getitem__)


RIGHT["best_of_three"] = {
    "the largest of three": best_of_three, "where the lines cross": lambda weight: 1 if weight < 10 else 2,
}  # fmt: skip
WRONG["best_of_three"] = edits(best_of_three, {
    "the smallest": ("max(", "min("),
    "the reward, no index": ("max(range(3), key=group.__getitem__)", "max(group)"),
    "counted from 1": ("return ", "return 1 + "),
    "the wrong one gets accuracy, too": ("weight * 1.0", "1 + weight * 1.0"),
    "accuracy forgotten": ("1 + weight * 0.9", "weight * 0.9"),
    "the weight forgotten in one": ("1 + weight * 0.9", "1 + 0.9"),
    "0.5 for 0.9": ("0.9", "0.5"),
    "always the purest right one": ("return ", "return 1 or "),
    "the weight on accuracy": ("1 + weight * 0.9, weight * 1.0", "weight + 0.9, 1.0"),
    "the order reversed": ("range(3), key", "range(2, -1, -1), key", "return ", "return 2 - "),
    "a list": ("return ", "return [", "__)", "__)]"),
    "crosses at 5": ("weight * 1.0]", "weight * 1.1]"),
    "crosses at 20": ("weight * 1.0]", "weight * 0.95]"),
})  # fmt: skip


def filter_table(failed, names):
    takers = [min(sample, key=names.index) for sample in failed if sample]
    return [(name, sum(name in sample for sample in failed), takers.count(name)) for name in names]


def table_by_removing(failed, names):
    left, rows = [set(sample) for sample in failed], []
    for name in names:
        gone = [sample for sample in left if name in sample]
        rows.append([name, sum(map(lambda sample: name in sample, failed)), len(gone)])
        left = [sample for sample in left if name not in sample]
    return rows


RIGHT["filter_table"] = {"the first that fails": filter_table, "one filter after another": table_by_removing}
WRONG["filter_table"] = edits(filter_table, {
    "the first in the sample's order": ("min(sample, key=names.index)", "sample[0]"),
    "the first in the alphabet": (", key=names.index", ""),
    "the last": ("min(", "max("),
    "raises on a sample that fails nothing": (" if sample]", "]"),
    "removes what fails": ("takers.count(name))", "sum(name in sample for sample in failed))"),
    "fails what removes": ("sum(name in sample for sample in failed)", "takers.count(name)"),
    "the two exchanged": (
        "sum(name in sample for sample in failed), takers.count(name)",
        "takers.count(name), sum(name in sample for sample in failed)"),
    "no name": ("(name, sum", "(sum"),
    "in the alphabet's order": ("for name in names]", "for name in sorted(names)]"),
    "without filters that nobody fails": ("for name in names]", "for name in names if name in str(failed)]"),
    "parts of names": ("name in sample for", "name in ''.join(sample) for"),
    "a dictionary": ("return [", "return dict(", "for name in names]", "for name in names)"),
    "one removed too many": ("takers.count(name)", "takers.count(name) + 1"),
    "only samples that fail one": ("if sample]", "if len(sample) == 1]"),
})  # fmt: skip


def written_count(kept, share):
    return round(kept * share / (1 - share))


RIGHT["written_count"] = {
    "solved": written_count, "the whole first": lambda kept, share: int(kept / (1 - share) - kept + 0.5),
}  # fmt: skip
WRONG["written_count"] = edits(written_count, {
    "a share of what was kept": (" / (1 - share)", ""),
    "the whole": ("kept * share /", "kept /"),
    "not rounded": ("round(", "("),
    "rounded down": ("round(", "int("),
    "rounded up": ("round(", "math.ceil("),
    "divided by the share": ("kept * share / (1 - share)", "kept / max(share, 1e-9)"),
    "the share of the kept ones": ("kept * share / (1 - share)", "kept * (1 - share) / max(share, 1e-9)"),
    "a quarter": ("kept * share / (1 - share)", "kept / 3"),
    "plus": ("(1 - share)", "(1 + share)"),
    "one more": ("return ", "return 1 + "),
    "to tens": ("(1 - share))", "(1 - share), -1)"),
    "squared": ("(1 - share)", "(1 - share) ** 2"),
})  # fmt: skip


def looks_hacked(reply):
    words = re.findall(r"\w+", reply)
    often = max(Counter(word.lower() for word in words).values(), default=0)
    return often >= 3 or len(set(words) & set(NAMES)) > 1


def hacked_by_counting(reply):
    words = "".join(letter if letter.isalnum() else " " for letter in reply).split()
    return any(words.count(word) > 2 for word in words) or sum(name in words for name in NAMES) >= 2


RIGHT["looks_hacked"] = {"a counter and a set": looks_hacked, "words counted one by one": hacked_by_counting}
WRONG["looks_hacked"] = edits(looks_hacked, {
    "twice is too often": (">= 3", ">= 2"),
    "four times": (">= 3", ">= 4"),
    "exactly three times": (">= 3", "== 3"),
    "one name is too many": ("> 1", "> 0"),
    "three names": ("> 1", "> 2"),
    "names alone": ("often >= 3 or ", ""),
    "words alone": (" or len(set(words) & set(NAMES)) > 1", ""),
    "both": (" or ", " and "),
    "split at white space": (r're.findall(r"\w+", reply)', "reply.split()"),
    "letters": ("in words).values", "in reply).values"),
    "a name said twice": ("len(set(words) & set(NAMES))", "sum(word in NAMES for word in words)"),
    "names inside words": ("len(set(words) & set(NAMES))", "sum(name in reply for name in NAMES)"),
    "a-z alone": (r"\w+", "[a-zA-Z]+"),
    "raises on an empty reply": (", default=0", ""),
    "in a row": ("often >= 3", r"bool(re.search(r'\b(\w+)\W+\1\W+\1\b', reply))"),
    "the first ten words": ("reply)\n", "reply)[:10]\n"),
})  # fmt: skip


def stop_at(rows):
    for i in range(2, len(rows)):
        if fmean(row["agreement"] for row in rows[i - 2 : i + 1]) < 0.8:
            return rows[i]["step"]
    return rows[-1]["step"]


def stop_by_triples(rows):
    low = [c["step"] for a, b, c in zip(rows, rows[1:], rows[2:])
           if a["agreement"] + b["agreement"] + c["agreement"] < 2.4]  # fmt: skip
    return [*low, rows[-1]["step"]][0]


RIGHT["stop_at"] = {"a window of three": stop_at, "triples": stop_by_triples}
WRONG["stop_at"] = edits(stop_at, {
    "the position": ('rows[i]["step"]', "i"),
    "one row": ("rows[i - 2 : i + 1]", "rows[i : i + 1]"),
    "two rows": ("rows[i - 2 : i + 1]", "rows[i - 1 : i + 1]"),
    "the rows before": ("rows[i - 2 : i + 1]", "rows[i - 2 : i]"),
    "the rows after": ("rows[i - 2 : i + 1]", "rows[i : i + 3]"),
    "all rows so far": ("rows[i - 2 : i + 1]", "rows[: i + 1]"),
    "the first of the three": ('rows[i]["step"]', 'rows[i - 2]["step"]'),
    "the worst": ("fmean(", "min("),
    "the best": ("fmean(", "max("),
    "above": ("< 0.8", "> 0.8"),
    "at 0.75": ("< 0.8", "< 0.75"),
    "from the first row": ("range(2, len", "range(len", "i - 2 : i", "max(0, i - 2) : i"),
    "None at the end": ('return rows[-1]["step"]', "return None"),
    "how many rows": ('return rows[-1]["step"]', "return len(rows)"),
    "the last of several": ("range(2, len(rows))", "reversed(range(2, len(rows)))"),
    "falsy steps are none": ("return rows[i]", "if rows[i]['step']: return rows[i]"),
})  # fmt: skip


def flops_sft(N, tokens):
    return 6 * N * tokens


def flops_rl(N, tokens):
    return (6 + 2 + 2) * N * tokens


RIGHT["flops_sft"] = {"a product": flops_sft, "three passes": lambda N, tokens: sum([2.0 * N * tokens] * 3)}
RIGHT["flops_rl"] = {
    "a product": flops_rl, "learning and two passes": lambda N, tokens: flops_sft(N, tokens) + 4 * N * tokens,
}  # fmt: skip
PRODUCTS = {
    "a power": ("N * tokens", "N ** 2 * tokens"),
    "N alone": ("N * tokens", "N"),
    "tokens alone": ("N * tokens", "tokens"),
    "a sum": ("N * tokens", "(N + tokens)"),
    "a token too few": ("N * tokens", "N * (tokens - 1)"),
    "in billions": ("N * tokens", "N * tokens / 1e9"),
    "32 bits wrap": ("N * tokens", "int(np.int64(N * tokens % 2**32).astype(np.int32))"),
    "64 bits wrap": ("N * tokens", "(N * tokens % 2**63)"),
    "in float16": ("N * tokens", "float(np.float16(N) * np.float16(tokens))"),
    "one more": ("return ", "return 1 + "),
}
WRONG["flops_sft"] = edits(flops_sft, PRODUCTS | {
    "forward alone": ("6", "2"), "backward alone": ("6", "4"), "a reference": ("6", "8"), "RL's": ("6", "10"),
})  # fmt: skip
WRONG["flops_rl"] = edits(flops_rl, PRODUCTS | {
    "without a reference": (" + 2)", ")"), "learning alone": ("(6 + 2 + 2)", "6"),
    "the reference learns": ("2 + 2", "2 + 6"), "two references": ("2 + 2", "2 + 2 + 2"),
})  # fmt: skip


def search_right(p, steps):
    return p**steps


RIGHT["search_right"] = {"a power": search_right, "a product": lambda p, steps: math.prod([p] * steps)}
WRONG["search_right"] = edits(search_right, {
    "a product": ("p**steps", "p * steps"),
    "the opposite": ("p**steps", "1 - p**steps"),
    "one step right": ("p**steps", "1 - (1 - p) ** steps"),
    "exchanged": ("p**steps", "steps**p"),
    "a step too many": ("**steps", "** (steps + 1)"),
    "a step too few": ("**steps", "** max(0, steps - 1)"),
    "linear": ("p**steps", "max(0, 1 - steps * (1 - p))"),
    "by an exponential": ("p**steps", "math.exp(-steps * (1 - p))"),
    "the logarithm of 0": ("p**steps", "math.exp(steps * math.log(p))"),
    "all wrong": ("p**steps", "(1 - p) ** steps"),
    "ten steps": ("**steps", "**10"),
    "the mean": ("p**steps", "p / max(1, steps)"),
})  # fmt: skip


def problems_needed(v, w, k, half):
    return math.ceil(round((1.96 / half) ** 2 * (v + w / k), 9))


RIGHT["problems_needed"] = {
    "solved": problems_needed, "numpy": lambda v, w, k, half: np.ceil((v + w / k) * 1.96**2 / half**2),
}  # fmt: skip
WRONG["problems_needed"] = edits(problems_needed, {
    "not rounded": ("math.ceil", "float"),
    "rounded down": ("math.ceil", "math.floor"),
    "rounded": ("math.ceil", "round"),
    "2 for 1.96": ("1.96", "2"),
    "1.645 for 1.96": ("1.96", "1.645"),
    "the answers' variance alone": ("v + w / k", "w / k"),
    "the problems' variance alone": ("v + w / k", "v"),
    "k forgotten": ("w / k", "w"),
    "both over k": ("v + w / k", "(v + w) / k"),
    "not squared": (") ** 2", ")"),
    "answers, no problems": ("(v + w / k)", "(k * v + w)"),
    "the whole width": ("/ half", "/ (half / 2)"),
    "one more": ("math.ceil", "1 + math.ceil"),
    "deviations added": ("v + w / k", "(v**0.5 + (w / k) ** 0.5) ** 2"),
})  # fmt: skip


def still_reachable(numbers, target, signs):
    total = numbers[0]
    for sign, number in zip(signs, numbers[1:]):
        total += number if sign == "+" else -number
    reachable = {total}
    for number in numbers[1 + len(signs):]:
        reachable = {t + s for t in reachable for s in (number, -number)}
    return target in reachable


def reachable_by_products(numbers, target, signs):
    start = [1, *(int(sign + "1") for sign in signs)]
    rest = itertools.product([1, -1], repeat=len(numbers) - len(start))
    return any(np.dot(numbers, [*start, *ending]) == target for ending in rest)


RIGHT["still_reachable"] = {"a growing set": still_reachable, "all endings": reachable_by_products}
WRONG["still_reachable"] = edits(still_reachable, {
    "signs ignored": ("zip(signs,", "zip('',", "1 + len(signs)", "1"),
    "the first number too may be negative": ("reachable = {total}", "reachable = {total, -total}"),
    "only plus": ("(number, -number)", "(number,)"),
    "only minus": ("(number, -number)", "(-number,)"),
    "a number may be left out": ("(number, -number)", "(number, -number, 0)"),
    "the next number only": ("numbers[1 + len(signs):]", "numbers[1 + len(signs):][:1]"),
    "the last number forgotten": ("numbers[1 + len(signs):]", "numbers[1 + len(signs):-1]"),
    "signs from the first number on": ("total = numbers[0]", "total = 0", "numbers[1:]):", "numbers):"),
    "within reach": ("target in reachable", "min(reachable) <= target <= max(reachable)"),
    "the right parity": ("target in reachable", "(sum(numbers) - target) % 2 == 0"),
    "the number of ways": ("return ", "return sum([", "reachable\n", "reachable])\n"),
    "the other sign": ('== "+"', '== "-"'),
    "the greatest": ("target in reachable", "target == max(reachable)"),
    "absolute values": ("target in reachable", "abs(target) in map(abs, reachable)"),
    "any target on the way": ("return target in reachable", "return target in reachable | {total}"),
})  # fmt: skip


def phantom_error(row, block):
    total = row.double().exp().sum()
    return float(((total + -len(row) % block) / total).log())


def phantoms_by_padding(row, block):
    padded = torch.nn.functional.pad(row, (0, -len(row) % block))
    return padded.logsumexp(0) - row.logsumexp(0)


RIGHT["phantom_error"] = {"the sums' quotient": phantom_error, "two log-sum-exps": phantoms_by_padding}
WRONG["phantom_error"] = edits(phantom_error, {
    "one phantom, however many": ("-len(row) % block", "(len(row) % block > 0)"),
    "block - len, without the remainder": ("-len(row) % block", "(block - len(row) % block)"),
    "the columns of the last block": ("-len(row) % block", "len(row) % block"),
    "single precision overflows": (".double()", ".float()"),
    "half precision": (".double()", ".half().double()"),
    "the other way": ("(total + -len(row) % block) / total", "total / (total + -len(row) % block)"),
    "no logarithm": (".log()", ""),
    "the sum's error": ("((total + -len(row) % block) / total).log()", "(-len(row) % block)"),
    "the error in parts": (".log()", " - 1"),
    "base 2": (".log()", ".log2()"),
    "phantoms of e": ("-len(row) % block", "(-len(row) % block) * math.e"),
    "blocks of 4": ("% block", "% 4"),
    "not summed": (".exp().sum()", ".exp().max()"),
    "always positive": (".log())", ".log()) + 1e-3"),
    "the mean": (".exp().sum()", ".exp().mean()"),
})  # fmt: skip

# ---- more wrong ones of the other exercises: NaN hidden, overflow on the other side, text at its edges


EDGES = {
    "group_advantages": {
        "NaN hidden in place of an epsilon": lambda r: (centered(r) / population_std(r)).nan_to_num(),
        "an epsilon of 1e-4": lambda r: centered(r) / (population_std(r) + 1e-4),
        "a least std in place of an epsilon": lambda r: centered(r) / population_std(r).clamp(min=1e-5),
    },
    "bradley_terry": {
        "an exponential that overflows": lambda a, b: (1 + (b - a).exp()).log().mean(),
        "a sigmoid that is kept above 0": lambda a, b: -((a - b).sigmoid() + 1e-12).log().mean(),
        "differences beyond 50 cut off": lambda a, b: (b - a).clamp(-50, 50).exp().log1p().mean(),
    },
    "format_reward": {
        "letters of the tag stripped": lambda text: format_by_tags("<think>" + text.lstrip("<think>")),
        "no `<` inside": lambda text: float(
            bool(re.fullmatch(r"\s*<think>[^<]*</think>\s*<answer>(?!\s*<)[^<]*</answer>\s*", text))),
        "tags of any case": lambda text: format_by_tags(text.lower()),
        "lines end in \\n alone": lambda text: format_by_tags(text) * ("\r" not in text),
    },
    "final_answer": {
        "letters of the tag stripped": lambda text: (answer_by_set(text) or "").strip("answer") or None,
        "no `<` inside": lambda text: answer_by_set(text) if "< " not in text else None,
        "words alone": lambda text: (re.findall(r"<answer>\s*(\w+)\s*</answer>", text) or [None])[0],
        "tags of any case": lambda text: answer_by_set(text.lower()),
        "values, not texts": lambda text: answer_by_set(text.replace(".0<", "<")),
    },
    "language_consistency": {
        "the first letter alone": lambda words, ours: consistency(
            [word for word in words if word[:1].isalpha()], ours),
        "a-z and Chinese alone": lambda words, ours: consistency(
            [w for w in words if re.search("[a-z\u4e00-\u9fff]", w)], ours),
    },
    "safe_accuracy": {
        "eval where there is no minus": lambda a, b: "-" not in a and same_by_eval(a, b) or same_value(a, b),
        "floats": lambda a, b: same_value(a, b) or close(a, b),
        "rounded fractions": lambda a, b: same_value(a, b) or rounded_fraction(a) == rounded_fraction(b),
    },
    "reflection_rate": {
        "a-z alone": lambda texts, markers: rate([" ".join(re.findall("[a-z]+", t)) for t in texts], markers),
        "split at commas and spaces": lambda texts, markers: fmean(
            [sum(word in markers for word in re.split("[ ,.]+", text)) for text in texts] or [0]),
    },
    "pass_at_k": {
        "binomials as floats": lambda n, c, k: 1 - float(math.comb(n - c, k)) / float(math.comb(n, k)),
        "float32 factorials": lambda n, c, k: 1 - float(np.prod(
            np.arange(n - c - k + 1, n - c + 1, dtype=np.float32) / np.arange(1, k + 1)) / math.comb(n, k)),
    },
    "tree_value": edits(tree, {
        "two children": ("in node)", "in node[:2])"),
        "the first child left out": ("in node)", "in node[1:])"),
        "chances of 0 raise": ("chance * value(child)", "value(child) / (1 / chance)"),
        "a product": ("sum(chance * value(child)", "math.prod(chance * value(child)"),
        "wrong leaves cost": ("float(node)", "2.0 * node - 1"),
    }),
}  # fmt: skip
for name, wrong in EDGES.items():
    RIGHT[name], WRONG[name] = {}, wrong


def close(answer, gold):
    """What floats make of two texts."""
    try:
        return math.isclose(float(Fraction(answer)), float(Fraction(gold)))
    except (ValueError, ZeroDivisionError):
        return False


def rounded_fraction(text):
    try:
        return Fraction(text).limit_denominator(100)
    except (ValueError, ZeroDivisionError):
        return text
