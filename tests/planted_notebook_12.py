"""Solutions of notebook 12's exercises: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import torch
from tests.planted_edits import edited, edits

RIGHT, WRONG = {}, {}

# ---- bytes_on_gpu(weights, gpus, sharded) --------------------------------------------------------

EACH = {"weights": 4, "gradients": 4, "optimizer": 8}


def part_by_part(weights, gpus, sharded):
    return sum(size * weights / (gpus if name in sharded else 1) for name, size in EACH.items())


def whole_and_shares(weights, gpus, sharded):
    shared = sum(EACH[name] for name in sharded)
    return (16 - shared) * weights + shared * weights / gpus


def by_conditions(weights, gpus, sharded):
    total = 4 * weights / gpus if "weights" in sharded else 4 * weights
    total += 4 * weights / gpus if "gradients" in sharded else 4 * weights
    return total + (8 * weights / gpus if "optimizer" in sharded else 8 * weights)


RIGHT["bytes_on_gpu"] = {
    "part by part": part_by_part, "what is whole and what is shared": whole_and_shares,
    "by conditions": by_conditions,
}  # fmt: skip
WRONG["bytes_on_gpu"] = {
    "the reference policy counted in": lambda w, gpus, sharded: part_by_part(w, gpus, sharded) + 4 * w,
    "all is sharded as soon as anything is": lambda w, gpus, sharded: 16 * w / gpus if sharded else 16.0 * w,
    "the sum over all GPUs": lambda w, gpus, sharded: part_by_part(w, gpus, sharded) * gpus,
    "what stands whole forgotten": lambda w, gpus, sharded: sum(EACH[name] for name in sharded) * w / gpus,
    "the GPU itself is not counted": lambda w, gpus, sharded: part_by_part(w, max(1, gpus - 1), sharded),
    "whole bytes by rounding down": lambda w, gpus, sharded:
        w // gpus * 16 if len(sharded) == 3 else part_by_part(w, gpus, sharded),
    "numbers, not bytes": lambda w, gpus, sharded: part_by_part(w, gpus, sharded) / 4,
} | edits(part_by_part, {
    "one number of Adam's two": ("EACH", "(EACH | {'optimizer': 4})"),
    "weights and gradients of two bytes": ("EACH", "(EACH | {'weights': 2, 'gradients': 2})"),
    "divided where it stands whole": ("gpus if name in sharded else 1", "1 if name in sharded else gpus"),
    "the weights are never sharded": ("in sharded", "in set(sharded) - {'weights'}"),
})  # fmt: skip

# ---- best_fit(lengths, capacity) -----------------------------------------------------------------


def longest_first(lengths):
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def fitted(lengths, capacity, rows, choose):
    """Each row into the line that `choose` picks of those it fits in, by their fills."""
    lines, fills = [], []
    for row in rows:
        open_lines = [i for i, fill in enumerate(fills) if fill + lengths[row] <= capacity]
        if open_lines:
            line = choose(open_lines, fills)
        else:
            line = len(lines)
            lines.append([])
            fills.append(0)
        lines[line].append(row)
        fills[line] += lengths[row]
    return lines


def fullest(open_lines, fills):
    return max(open_lines, key=lambda line: fills[line])


def by_fills(lengths, capacity, choose=fullest):
    return fitted(lengths, capacity, longest_first(lengths), choose)


def by_space_left(lengths, capacity):
    lines = []  # [tokens left, rows]
    for row in longest_first(lengths):
        room = [line for line in lines if line[0] >= lengths[row]]
        if not room:
            room = [[capacity, []]]
            lines.append(room[0])
        line = min(room, key=lambda line: line[0])
        line[0] -= lengths[row]
        line[1].append(row)
    return [rows for _, rows in lines]


def last_of_the_fullest(lengths, capacity):
    """Ties broken the other way, in rows and in lines."""
    rows = sorted(range(len(lengths)), key=lambda row: (lengths[row], row), reverse=True)
    return fitted(lengths, capacity, rows, lambda lines, fills: fullest(lines[::-1], fills))[::-1]


def next_fit(lengths, capacity):
    lines, fill = [], capacity
    for row in longest_first(lengths):
        if not lines or fill + lengths[row] > capacity:
            lines, fill = [*lines, []], 0
        lines[-1].append(row)
        fill += lengths[row]
    return lines


def padded(lengths, capacity):
    """A line is as many rows as fit when all are as long as its longest."""
    lines = []
    for row in longest_first(lengths):
        if lines and lengths[lines[-1][0]] * (len(lines[-1]) + 1) <= capacity:
            lines[-1].append(row)
        else:
            lines.append([row])
    return lines


RIGHT["best_fit"] = {
    "by how full the lines are": by_fills, "by what is left of the lines": by_space_left,
    "ties broken the other way": last_of_the_fullest,
}  # fmt: skip
WRONG["best_fit"] = {
    "in the order they come": lambda lengths, room: fitted(lengths, room, range(len(lengths)), fullest),
    "shortest first": lambda lengths, room: fitted(lengths, room, longest_first(lengths)[::-1], fullest),
    "the first line in which it fits": lambda lengths, room:
        by_fills(lengths, room, lambda lines, fills: lines[0]),
    "the emptiest line": lambda lengths, room:
        by_fills(lengths, room, lambda lines, fills: min(lines, key=fills.__getitem__)),
    "only the last line": next_fit,
    "a line is never quite full": lambda lengths, room: by_fills(lengths, room - 1),
    "one token too many": lambda lengths, room: by_fills(lengths, room + 1),
    "lengths in place of row numbers": lambda lengths, room:
        [[lengths[row] for row in line] for line in by_fills(lengths, room)],
    "rows that are too long dropped": lambda lengths, room:
        [line for line in by_fills(lengths, room) if lengths[line[0]] <= room],
    "padded, not packed": padded,
    "numbers of the sorted rows": lambda lengths, room: by_fills(sorted(lengths, reverse=True), room),
    "the last row is lost": lambda lengths, room: by_fills(lengths[:-1], room),
    "a line for each row": lambda lengths, room: [[row] for row in range(len(lengths))],
    "only the number of lines": lambda lengths, room: len(by_fills(lengths, room)),
    "its argument sorted in place": lambda lengths, room:
        lengths.sort(reverse=True) or by_fills(lengths, room),
}  # fmt: skip

# ---- tis_weight(trainer, sampler, cap) -----------------------------------------------------------


def clamped(trainer, sampler, cap):
    return (trainer - sampler).exp().clamp(max=cap).detach()


def by_minimum(trainer, sampler, cap):
    with torch.no_grad():
        ratio = trainer.exp() / sampler.exp()
        return torch.minimum(ratio, torch.full_like(ratio, cap))


def capped_in_logarithms(trainer, sampler, cap):
    bound = torch.tensor(float(cap)).log()
    return torch.where(trainer - sampler > bound, bound, trainer - sampler).exp().detach()


def ratio(trainer, sampler):
    return (trainer - sampler).exp().detach()


RIGHT["tis_weight"] = {
    "exponential of the difference, clamped": clamped, "minimum of ratio and cap": by_minimum,
    "capped before the exponential": capped_in_logarithms,
}  # fmt: skip
WRONG["tis_weight"] = {
    "upside down": lambda new, old, cap: clamped(old, new, cap),
    "not truncated": lambda new, old, cap: ratio(new, old),
    "truncated from below, too": lambda new, old, cap: ratio(new, old).clamp(1 / cap, cap),
    "never below 1": lambda new, old, cap: ratio(new, old).clamp(1, cap),
    "the cap from below": lambda new, old, cap: ratio(new, old).clamp(min=cap),
    "clipped as PPO's ratio": lambda new, old, cap: ratio(new, old).clamp(0.8, 1.2),
    "what passes the cap is thrown away": lambda new, old, cap: ratio(new, old) * (ratio(new, old) <= cap),
    "the difference without its exponential": lambda new, old, cap: (new - old).clamp(max=cap).detach(),
    "the cap on the logarithm": lambda new, old, cap: (new - old).clamp(max=cap).exp().detach(),
    "one weight for the sequence": edited(clamped, "sampler)", "sampler).sum(-1, True).expand_as(trainer)"),
    "divided by its mean": lambda new, old, cap: clamped(new, old, cap) / clamped(new, old, cap).mean(),
    "the ratio of log-probs": lambda new, old, cap: (new / old).clamp(max=cap).detach(),
    "a gradient flows through it": lambda new, old, cap: (new - old).exp().clamp(max=cap),
    "the cap is always 2": lambda new, old, cap: clamped(new, old, 2.0),
}
