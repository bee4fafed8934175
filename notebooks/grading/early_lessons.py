"""Where the questions of lessons 00 to 03 come from, and their right answers."""

import itertools
import math
import re
from collections import Counter
from fractions import Fraction

import torch
from grading.drawing import some, source, tensor

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


def _no_rounding(rewards):
    """In each group rewards differ by far more than rounding does, or are equal whole numbers."""
    spread, scale = rewards.std(1, correction=0), rewards.abs().amax(1)
    return ((spread > 0.1 * scale) | (rewards == rewards.round()).all(1)).all()


@source(lambda r: _advantages(r, 0), lambda r: _advantages(r, 1), clear=_no_rounding)
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
    clear=lambda new, old, ref, rewards, *_: bool(
        _off_the_corners((new - old).exp(), None, 0.2, 0.2) and _no_rounding(rewards)
    ),
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
    before, _, between, answer, after = re.split(tag, completion)
    return float(answer.strip() != "" and not (before + between + after).strip())


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
