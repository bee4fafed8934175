"""Where the questions of lessons 04 to 12 come from, and their right answers."""

import itertools
import math
import re
from collections import Counter

import torch
from grading.drawing import some, source, tensor
from torch.nn.functional import logsigmoid

from r1lab.world.words import NAMES

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
    lambda count, share: round(count * share / (1 - share)),
    clear=lambda count, share: abs(count * share / (1 - share) % 1 - 0.5) > 1e-3,
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
    filled = _in_tile(z, first, ids, chosen)
    return filled.isfinite().all() and not (chosen * _in_tile(z, first, ids, 0 * chosen)).any()


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
