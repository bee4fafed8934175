"""Random questions for the exercises of the lessons, with their right answers: the teacher's copy.

`python -m tests.tools.questions` draws those that `r1lab.lab.check` asks. With another seed it has others,
which no learner has seen. Learners' copies of the lessons come without this file.

A question is [why, arguments, right answer, ...]. Arguments are plain data, in which {"tensor": [...]},
{"set": [...]}, {"tuple": [...]} and {"one_of": [...]} stand for what JSON cannot hold. Where the check
compares tensors, a right answer is [result, slopes ...].
"""

import itertools
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid

from r1lab.files import write_text
from r1lab.lab.check import asking, engine
from r1lab.world.words import NAMES

BY_RULE = "drawn at random"  # the sentence of a question that nobody wrote by hand
SEED, EACH = 1, 6  # of the questions that a learner's own check asks


class Source(NamedTuple):
    """Where questions of an exercise come from."""

    draw: Callable  # (random numbers, size) -> arguments; sizes of one question fit those of another
    rights: tuple[Callable, ...]  # right functions, of which any may be written
    clear: Callable  # (arguments) -> is there one answer only, with no rounding at stake?


SOURCES: dict[str, Source] = {}


def source(*rights: Callable, clear: Callable = lambda *args: True) -> Callable:
    """Register a function that draws arguments, beside the right functions."""

    def register(draw):
        SOURCES[draw.__name__] = Source(draw, rights, clear)
        return draw

    return register


def questions(name: str, seed: object, count: int = EACH) -> Iterator[list]:
    """Draw questions of random sizes; each also with one argument changed, and no other.

    A cache that forgets an argument, or that knows no more than shapes, gives an old answer to one of them.
    """
    rng = random.Random(f"{name} {seed}")
    while count > 0:
        size = rng.randint(1, 9)
        args, others = SOURCES[name].draw(rng, size), SOURCES[name].draw(rng, size)
        changed = [[*args[:place], other, *args[place + 1 :]] for place, other in enumerate(others)]
        asked = [question for one in [args, *changed] if (question := answered(name, BY_RULE, one))]
        yield from asked
        count -= bool(asked)


def answered(name: str, why: str, args: list) -> list | None:
    """Make a question of arguments; None where they fit no right answer, or more than one."""
    found = SOURCES[name]
    slopes = engine.EXERCISES[name].get("slopes", [])
    try:
        if not found.clear(*decoded(args)):
            return None
        answers = [answer_of(right, args, slopes) for right in found.rights]
    except (ArithmeticError, ValueError, IndexError, TypeError, RuntimeError):
        return None
    if "words" not in engine.EXERCISES[name]:
        answers = [result for result, *_ in answers]
    distinct = [one for place, one in enumerate(answers) if repr(one) not in map(repr, answers[:place])]
    return [why, args, *distinct]


def answer_of(right: Callable, args: list, slopes: list) -> list:
    """[result, slopes ...] of a right function, as lists."""
    replied = asking.decode(asking.reply(right, json.dumps(args), slopes))
    if "fault" in replied:
        raise ValueError(replied["fault"])
    values = [one.tolist() if isinstance(one, torch.Tensor) else one for one in replied["values"]]
    return rounded(values)


def decoded(args: list) -> list:
    return asking.decode(json.dumps(args))


def rounded(value: object) -> object:
    """Floats with as many digits as float32 has."""
    if isinstance(value, list):
        return list(map(rounded, value))
    return float(f"{value:.7g}") if isinstance(value, float) and math.isfinite(value) else value


def tensor(rng: random.Random, *shape: int, low: float = -2.0, high: float = 2.0, digits: int = 2) -> dict:
    """A tensor of random numbers of a few digits."""

    def numbers(sizes):
        if not sizes:
            return round(rng.uniform(low, high), digits)
        return [numbers(sizes[1:]) for _ in range(sizes[0])]

    return {"tensor": numbers(shape)}


def some(rng: random.Random, choices: list, least: int = 0, most: int = 6) -> list:
    return rng.choices(choices, k=rng.randint(least, most))


# ---- lesson 00


def _pass_at_1(correct):
    return sum(sum(answers) / len(answers) for answers in correct) / len(correct)


@source(_pass_at_1)
def pass_at_1(rng, size):
    return [[some(rng, [True, False], 1) for _ in range(size)]]


# ---- lesson 01


def _advantages(rewards, correction):
    spread = rewards.std(1, correction=correction, keepdim=True)
    return (rewards - rewards.mean(1, keepdim=True)) / (spread + 1e-6)


@source(lambda r: _advantages(r, 0), lambda r: _advantages(r, 1))
def group_advantages(rng, size):
    scale = rng.choice([1.0, 1.0, 100.0, 1e-4])
    group = tensor(rng, size, rng.choice([size + 1, 3]))["tensor"]
    if scale < 100 and rng.random() < 0.5:  # equal whole numbers, whose mean has no rounding
        group[0] = [float(rng.randint(-2, 2))] * len(group[0])
    return [{"tensor": [[scale * reward for reward in row] for row in group]}]


def _clipped(ratio, advantages, low, high):
    return torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def _off_the_corners(ratio, advantages, low, high):
    return not any(((ratio - corner).abs() < 1e-4).any() for corner in (1 - low, 1 + high))


@source(_clipped, clear=_off_the_corners)
def clipped_objective(rng, size):
    return [
        tensor(rng, size, 5, low=0.0, high=3.0, digits=3), tensor(rng, size, 1),
        round(rng.uniform(0.1, 0.9), 2), round(rng.uniform(0.1, 1.5), 2),
    ]  # fmt: skip


def _k3(logps, ref_logps):
    return (ref_logps - logps).exp() - (ref_logps - logps) - 1


def _k3_over_k2(logps, ref_logps):
    k2 = (ref_logps - logps) ** 2 / 2
    return k2 + (_k3(logps, ref_logps) - k2).detach()


@source(_k3, _k3_over_k2)
def kl_penalty(rng, size):
    return [tensor(rng, size, 4, low=-6.0, high=0.0), tensor(rng, size, 4, low=-6.0, high=0.0)]


def _mask(rng, rows, width):
    lengths = [rng.randint(1, width) for _ in range(rows)]
    return {"tensor": [[place < length for place in range(width)] for length in lengths]}


@source(lambda x, mask: x[mask].mean(), clear=lambda x, mask: x[mask].isfinite().all())
def token_mean(rng, size):
    mask, tokens = _mask(rng, size, 4), tensor(rng, size, 4)
    junk = rng.choice([0.0, 1e6, -math.inf, math.inf, math.nan])
    for row, keep in zip(tokens["tensor"], mask["tensor"]):
        row[:] = [x if k else junk for x, k in zip(row, keep)]
    return [tokens, mask]


def _grpo(logps, old, ref, rewards, mask, beta, correction, kl):
    column = _advantages(rewards, correction).detach().reshape(-1, 1)
    per_token = _clipped((logps - old).exp(), column, 0.2, 0.2) - beta * kl(logps, ref)
    return -torch.where(mask, per_token, 0.0).sum() / mask.sum()


def _four_losses():
    def loss(correction, kl):
        return lambda *args: _grpo(*args, correction, kl)

    return [loss(*choice) for choice in itertools.product((0, 1), (_k3, _k3_over_k2))]


@source(
    *_four_losses(),
    clear=lambda new, old, *_: _off_the_corners((new - old).exp(), None, 0.2, 0.2),
)
def grpo_loss(rng, size):
    size, group = 1 + size % 2, 2 + size % 4
    logps = [tensor(rng, size * group, 3, low=-3.0, high=0.0) for _ in range(3)]
    rewards = tensor(rng, size, group, low=0.0, high=1.0, digits=1)
    return [*logps, rewards, _mask(rng, size * group, 3), rng.choice([0.0, 0.04, 0.5])]


def _gae(rewards, values, lam, gamma=1.0):
    after, running = 0.0, 0.0
    steps = []
    for t in reversed(range(rewards.shape[1])):
        running = rewards[:, t] + gamma * after - values[:, t] + gamma * lam * running
        after = values[:, t]
        steps.insert(0, running)
    return torch.stack(steps, 1)


@source(_gae)
def gae(rng, size):
    return [tensor(rng, 2, size), tensor(rng, 2, size), round(rng.random(), 2), round(rng.random(), 2)]


# ---- lesson 02

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
INSIDE = ["think", "answer", "kin", "7", " 3 < 4 ", "a\r\nb", "</", "нет", "等", "> <", "x > y", "\t"]


def _format(completion):
    tag = "</?(?:think|answer)>"
    if re.findall(tag, completion) != TAGS:
        return 0.0
    before, _, between, _, after = re.split(tag, completion)
    return float(not (before + between + after).strip())


@source(_format)
def format_reward(rng, size):
    inside, outside = ("".join(some(rng, INSIDE, 0, 3)) for _ in range(2))
    space = [rng.choice(["", " ", "\n", "\r\n", "\t\n"]) for _ in range(3)]
    parts = [space[0], "<think>", inside, "</think>", space[1], "<answer>", outside, "</answer>", space[2]]
    if rng.random() < 0.5:
        place = rng.randrange(len(parts))
        parts[place] = rng.choice([*TAGS, "", "x", "<Answer>", parts[place] * 2])
    return ["".join(parts)]


def _answer(completion):
    blocks = re.findall("<answer>(.*?)</answer>", completion, re.DOTALL)
    distinct = {block.strip() for block in blocks}
    return distinct.pop() if len(distinct) == 1 else None


@source(_answer)
def final_answer(rng, size):
    texts = ["7", "3 < 4", "1/2", "answer", "wer", "swans", "нет", "x > 1", "a\r\nb", "<b>"]
    chosen = some(rng, texts, 1, 2)
    between = ["", "\r\n", " or 8 ", "</answer>", "<think> 9 </think>", "< answer >9</ answer >"]
    blocks = [
        rng.choice(between) + f"<answer>{rng.choice([' ', '', chr(10), chr(13) + chr(10)])}{text} </answer>"
        for text in rng.choices(chosen, k=rng.randint(0, 3))
    ]
    return ["".join([*blocks, rng.choice(["", " 9", "<answer> 9"])])]


def _consistency(words, is_target):
    spoken = [word for word in words if any(letter.isalpha() for letter in word)]
    return sum(map(is_target, spoken)) / len(spoken) if spoken else 0.0


WORDS = ["no", "wait", "so,", "等", "不", "нет", "λόγος", "아니", "été", "don't", "لا", "x2"]


@source(_consistency)
def language_consistency(rng, size):
    words = some(rng, [*WORDS, "13", "9+5=14", "?!", "", "3.14", "٣", "−"], 0, 3 * size)
    return [words, {"one_of": rng.sample([*WORDS, "13"], 5)}]


def _accuracy(answer, gold):
    def value(text):
        number = re.fullmatch(r"\s*([-+]?\d+(\.\d+|/\d+)?)\s*", text, re.ASCII)
        return Fraction(number[1]) if number else None

    try:
        return value(answer) is not None and value(answer) == value(gold)
    except ZeroDivisionError:
        return False


NO_NUMBERS = ["3+4", "2*3", "(7)", "14//2", "2**3", "0x7", "7 8", "--7", "abs(7)", "1/0", "8/4/2", "[7][0]"]


@source(_accuracy)
def safe_accuracy(rng, size):
    number = Fraction(rng.randint(-40, 40), rng.choice([1, 1, 2, 5, 10]))
    factor = rng.choice([1, 2, 3, 7])
    forms = [
        f"{number.numerator * factor}/{number.denominator * factor}", f"{float(number)}", f" {number} \n",
        f"{number}", f"{-number}", f"{number + 1}", f"00{abs(number)}",
    ]  # fmt: skip
    return [rng.choice([*forms, *forms, rng.choice(NO_NUMBERS)]), str(number)]


# ---- lesson 03


@source(lambda n, correct, k: 1 - math.comb(n - correct, k) / math.comb(n, k))
def pass_at_k(rng, size):
    n = rng.choice([size, 4 * size, 100 * size])
    return [n, rng.randint(0, rng.choice([n, 3])) % (n + 1), rng.randint(1, n)]


def _vote(answers):
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None


@source(_vote)
def majority_vote(rng, size):
    return [some(rng, rng.sample([None, "7", "07", "-7", " 7", "8", "", "None", "等"], 4), 0, 2 * size)]


def _reflection(completions, markers):
    counts = [sum(word in markers for word in re.findall(r"\w+", text)) for text in completions]
    return sum(counts) / len(counts) if counts else 0.0


MARKERS = ["wait", "but", "retry", "нет", "等", "été"]
PIECES = [*MARKERS, "await", "butter", "waits", "7", "нетто", "rebut"]


@source(_reflection)
def reflection_rate(rng, size):
    marks = [",", " ", "\r\n", "-", "…", ".", "\t", ", "]
    texts = ["".join(word + rng.choice(marks) for word in some(rng, PIECES, 0, 8)) for _ in range(size - 1)]
    return [texts, {"set": rng.sample(MARKERS, rng.randint(0, 4))}]


@source(lambda prompts, completions, **columns: [float("wait" in text.split()) for text in completions])
def says_wait(rng, size):
    words = ["wait", "await", "waits", "no", "wai", "t", "等"]
    texts = [rng.choice([" ", "\n", "\r\n", "\t", "  "]).join(some(rng, words, 0, 4)) for _ in range(size)]
    return [[rng.choice(["wait", ""]) for _ in range(size)], texts]


@source(lambda p, G: p**G + (1 - p) ** G)
def silent_share(rng, size):
    return [rng.choice([0.0, 1.0, *(round(rng.random(), 3) for _ in range(3))]), rng.choice([size, 16, 64])]


# ---- lesson 04


def _translate(text, table):
    return re.sub("[a-zA-Z]+|[\u4e00-\u9fff]", lambda match: table.get(match[0], match[0]), text)


@source(_translate)
def translate(rng, size):
    words = ["no", "ok", "know", "nook", "不", "等", "对", "wait"]
    marks = [" ", ", ", "\r\n", ":7 ", "等", "."]
    text = "".join(word + rng.choice(marks) for word in some(rng, words, 0, 8))
    keys = rng.sample(words, rng.randint(0, 5))
    return [text, {key: rng.choice([*words, "\\1", "a.b", ""]) for key in keys}]


def _completion_mask(starts, ends, width):
    places = torch.arange(width)
    return (places >= starts[:, None]) & (places < ends[:, None])


@source(_completion_mask)
def completion_mask(rng, size):
    starts = [rng.randint(0, 9) for _ in range(size)]
    ends = [start + rng.randint(0, 5) for start in starts]
    return [{"tensor": starts}, {"tensor": ends}, rng.randint(1, 14)]


# ---- lesson 05


@source(
    lambda R, weight: 1 + weight * R > weight,
    clear=lambda R, weight: abs(1 + weight * R - weight) > 1e-3,
)
def worth_mixing(rng, size):
    return [rng.choice([0.0, 1.0, round(rng.random(), 2)]), rng.choice([0.0, 0.5, 1.5, float(size), 100.0])]


def _best(weight):
    return max(range(3), key=[1 + weight * 0.6, 1 + weight * 0.9, weight * 1.0].__getitem__)


@source(_best, clear=lambda weight: weight > 0.01 and abs(weight - 10) > 0.01)
def best_of_three(rng, size):
    return [rng.choice([round(rng.uniform(0, 20), 2), 1e6, 0.05, rng.uniform(9.5, 10.5)])]


# ---- lesson 06


def _table(failed, names):
    first = [min(sample, key=names.index) for sample in failed if sample]
    return [(name, sum(name in sample for sample in failed), first.count(name)) for name in names]


@source(_table)
def filter_table(rng, size):
    names = ["format", "language", "length", "form", "right"]
    return [
        [rng.sample(names, rng.randint(0, 5)) for _ in range(rng.randint(0, 3 * size))],
        rng.sample(names, 5),
    ]  # fmt: skip


@source(
    lambda kept, share: round(kept * share / (1 - share)),
    clear=lambda kept, share: abs(kept * share / (1 - share) % 1 - 0.5) > 1e-3,
)
def written_count(rng, size):
    return [rng.choice([0, size, 1000 * size + 7]), rng.choice([0.0, 0.5, 0.9, 0.99, round(rng.random(), 2)])]


# ---- lesson 07


@source(lambda chosen, rejected: -logsigmoid(chosen - rejected).mean())
def bradley_terry(rng, size):
    far = rng.choice([3.0, 3.0, 150.0])
    return [tensor(rng, size, low=-far, high=far), tensor(rng, size, low=-far, high=far)]


def _hacked(reply):
    words = re.findall(r"\w+", reply)
    often = max(Counter(word.lower() for word in words).values(), default=0)
    return often >= 3 or len(set(words) & set(NAMES)) > 1


@source(_hacked)
def looks_hacked(rng, size):
    words = [*NAMES[:4], "to", "tea", "tomorrow", "the", "is", "warm", "teapot", "нет"]
    marks = [" ", ", ", ". ", "! ", "\r\n", ","]
    return ["".join(word + rng.choice(marks) for word in some(rng, words, 0, 2 * size))]


def _stop(rows):
    for i in range(2, len(rows)):
        if sum(row["agreement"] for row in rows[i - 2 : i + 1]) / 3 < 0.8:
            return rows[i]["step"]
    return rows[-1]["step"]


def _no_tie(rows):
    triples = zip(rows, rows[1:], rows[2:])
    return all(abs(sum(row["agreement"] for row in three) - 2.4) > 1e-3 for three in triples)


@source(_stop, clear=_no_tie)
def stop_at(rng, size):
    low, steps = rng.choice([0.5, 0.7, 0.85]), itertools.accumulate(rng.randint(1, 20) for _ in range(size))
    return [[{"step": step, "agreement": round(rng.uniform(low, 1.0), 2)} for step in steps]]


# ---- lesson 08


@source(lambda N, tokens: 6.0 * N * tokens)
def flops_sft(rng, size):
    weights = rng.choice([size, 10**6 * size, 671 * 10**9])
    return [weights, rng.choice([0, 7 * size, 10**9 * size, 15 * 10**12])]


@source(lambda N, tokens: 10.0 * N * tokens)
def flops_rl(rng, size):
    return flops_sft(rng, size)


@source(lambda p, steps: p**steps)
def search_right(rng, size):
    return [rng.choice([0.0, 1.0, 0.5, round(rng.uniform(0.8, 1), 3)]), rng.choice([0, 1, size, 50])]


# ---- lesson 09


def _exact_need(v, w, k, half):
    return (1.96 / half) ** 2 * (v + w / k)


@source(
    lambda *args: math.ceil(_exact_need(*args)),
    clear=lambda *args: 1e-4 < _exact_need(*args) % 1 < 1 - 1e-4,
)
def problems_needed(rng, size):
    between, within = round(rng.uniform(0, 0.25), 3), round(rng.uniform(0.01, 0.25), 3)
    return [between, within, size, rng.choice([0.01, 0.02, 0.1])]


# ---- lesson 10


def _reachable(numbers, target, signs):
    ways = itertools.product([1, -1], repeat=len(numbers) - 1 - len(signs))
    start = [1, *(1 if sign == "+" else -1 for sign in signs)]
    return any(sum(map(math.prod, zip(numbers, [*start, *way]))) == target for way in ways)


@source(_reachable)
def still_reachable(rng, size):
    numbers = [rng.randint(1, 9) for _ in range(1 + size % 6)]
    target = numbers[0] + sum(rng.choice([1, -1]) * number for number in numbers[1:])
    return [numbers, target, "".join(rng.choice("+-") for _ in range(rng.randint(0, len(numbers) - 1)))]


def _value(node):
    return sum(chance * _value(child) for chance, child in node) if isinstance(node, list) else float(node)


def _tree(rng, depth):
    if depth == 0 or rng.random() < 0.2:
        return rng.randint(0, 1)
    shares = [rng.randint(1, 5) for _ in range(rng.randint(1, 4))]
    return [{"tuple": [share / sum(shares), _tree(rng, depth - 1)]} for share in shares]


@source(_value)
def tree_value(rng, size):
    return [_tree(rng, 1 + size % 4)]


def _puct(total, visits, prior, siblings, c):
    return total / max(1, visits) + c * prior * siblings**0.5 / (1 + visits)


@source(_puct, clear=lambda total, visits, *_: visits or not total)
def puct_score(rng, size):
    visits = rng.choice([0, 1, size, 50])
    total = round(rng.uniform(-1, 1) * visits, 2)
    return [total, visits, round(rng.random(), 2), visits + rng.randint(0, 30), round(rng.uniform(0, 3), 2)]


# ---- lesson 11


def _softmax(top, mass, block):
    new = torch.maximum(top, block.max())
    return torch.stack([new, mass * (top - new).exp() + (block - new).exp().sum()])


@source(_softmax)
def online_softmax(rng, size):
    far = rng.choice([3.0, 300.0])
    block = tensor(rng, size, low=-far, high=far)
    if size > 1:  # a masked score
        block["tensor"][rng.randrange(1, size)] = -math.inf
    top = rng.choice([-math.inf, round(rng.uniform(-far, far), 1)])
    return [{"tensor": top}, {"tensor": 0.0 if top == -math.inf else float(rng.randint(1, 9))}, block]


def _in_tile(z, first, ids, chosen):
    hit = torch.arange(first, first + z.shape[1]) == ids[:, None]
    return chosen + torch.where(hit, z, 0.0).sum(1)


def _not_yet_found(z, first, ids, chosen):
    found = _in_tile(z, first, ids, chosen)
    return found.isfinite().all() and not (chosen * _in_tile(z, first, ids, 0 * chosen)).any()


@source(_in_tile, clear=_not_yet_found)
def target_in_tile(rng, size):
    width, first = rng.randint(1, 7), rng.choice([0, 3, 7, 13])
    z = tensor(rng, size, width)
    ids = [rng.choice([-1, first + rng.randrange(width), rng.randint(0, 22)]) for _ in range(size)]
    inside = [first <= one < first + width for one in ids]
    for row, one in zip(z["tensor"], ids):
        masked = [column != one - first and rng.random() < 0.3 for column in range(width)]
        row[:] = [-math.inf if hidden else x for hidden, x in zip(masked, row)]
    chosen = [0.0 if here or rng.random() < 0.3 else round(rng.uniform(-5, 5), 1) for here in inside]
    return [z, first, {"tensor": ids}, {"tensor": chosen}]


def _phantoms(row, block):
    total = row.double().exp().sum()
    return float(((total + -len(row) % block) / total).log())


@source(_phantoms)
def phantom_error(rng, size):
    center = rng.choice([0.0, 0.0, -20.0, 20.0])
    return [tensor(rng, size, low=center - 3, high=center + 3), rng.choice([1, 3, 4, size, 64])]


# ---- lesson 12

PARTS = {"weights": 4, "gradients": 4, "optimizer": 8}


def _bytes(weights, gpus, sharded):
    return float(sum(size * weights / (gpus if name in sharded else 1) for name, size in PARTS.items()))


@source(_bytes)
def bytes_on_gpu(rng, size):
    weights = rng.choice([size, 10**6 * size + 1, 671 * 10**9])
    return [weights, rng.choice([1, 2, size, 2048]), {"set": rng.sample(sorted(PARTS), rng.randint(0, 3))}]


def _pack(lengths, capacity):
    lines, fills = [], []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        room = [line for line, fill in enumerate(fills) if fill + lengths[row] <= capacity]
        line = max(room, key=fills.__getitem__, default=len(lines))
        if not room:
            lines, fills = [*lines, []], [*fills, 0]
        lines[line].append(row)
        fills[line] += lengths[row]
    return sorted(fills)


@source(_pack)
def best_fit(rng, size):
    return [[rng.randint(1, 36) for _ in range(rng.randint(0, 4 * size))], 32]


@source(lambda trainer, sampler, cap: (trainer - sampler).exp().clamp(max=cap).detach())
def tis_weight(rng, size):
    return [
        tensor(rng, size, 3, low=-4.0, high=0.0), tensor(rng, size, 3, low=-4.0, high=0.0),
        rng.choice([1.0, 1.5, 2.0, 5.0, 20.0]),
    ]  # fmt: skip


def write():
    """Draw the questions of the learners' checks again, behind those that were written by hand."""
    lines = []
    for name in engine.EXERCISES:
        by_hand = [question for question in engine.EXAMPLES.get(name, []) if question[0] != BY_RULE]
        asked = [*by_hand, *questions(name, SEED)]
        rows = ",\n".join("  " + json.dumps(question, ensure_ascii=False) for question in asked)
        lines.append(f" {json.dumps(name)}: [\n{rows}\n ]")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    write_text(engine.Path(engine.__file__).with_name("examples.json"), text)


if __name__ == "__main__":
    write()
