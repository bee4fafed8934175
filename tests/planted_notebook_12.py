"""Solutions of notebook 12's exercises: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import torch

RIGHT, WRONG = {}, {}

# ---- bytes_on_gpu(weights, gpus, sharded) --------------------------------------------------------

EACH = {"weights": 4, "gradients": 4, "optimizer": 8}


def part_by_part(weights, gpus, sharded):
    return sum(
        size * weights / (gpus if name in sharded else 1) for name, size in EACH.items()
    )


def whole_and_shares(weights, gpus, sharded):
    shared = sum(EACH[name] for name in sharded)
    return (16 - shared) * weights + shared * weights / gpus


def by_conditions(weights, gpus, sharded):
    total = 4 * weights / gpus if "weights" in sharded else 4 * weights
    total += 4 * weights / gpus if "gradients" in sharded else 4 * weights
    return total + (8 * weights / gpus if "optimizer" in sharded else 8 * weights)


def with_sizes(weights, gpus, sharded, sizes=EACH):
    return sum(
        size * weights / (gpus if name in sharded else 1) for name, size in sizes.items()
    )


RIGHT["bytes_on_gpu"] = {
    "part by part": part_by_part,
    "what is whole and what is shared": whole_and_shares,
    "by conditions": by_conditions,
}
WRONG["bytes_on_gpu"] = {
    "one number of Adam's two": lambda weights, gpus, sharded: (
        with_sizes(weights, gpus, sharded, EACH | {"optimizer": 4})
    ),
    "weights and gradients of two bytes": lambda weights, gpus, sharded: (
        with_sizes(weights, gpus, sharded, {"weights": 2, "gradients": 2, "optimizer": 8})
    ),
    "the reference policy counted in": lambda w, gpus, sharded: part_by_part(w, gpus, sharded) + 4 * w,
    "all is sharded as soon as anything is": lambda w, gpus, sharded: 16 * w / gpus if sharded else 16.0 * w,
    "the sum over all GPUs": lambda w, gpus, sharded: part_by_part(w, gpus, sharded) * gpus,
    "divided where it stands whole": lambda weights, gpus, sharded: (
        sum(size * weights / (1 if name in sharded else gpus) for name, size in EACH.items())
    ),
    "what stands whole forgotten": lambda w, gpus, sharded: sum(EACH[name] for name in sharded) * w / gpus,
    "the weights are never sharded": lambda weights, gpus, sharded: (
        part_by_part(weights, gpus, set(sharded) - {"weights"})
    ),
    "the GPU itself is not counted": lambda w, gpus, sharded: part_by_part(w, max(1, gpus - 1), sharded),
    "whole bytes by rounding down": lambda w, gpus, sharded: w // gpus * 16
    if len(sharded) == 3
    else part_by_part(w, gpus, sharded),
    "numbers, not bytes": lambda w, gpus, sharded: part_by_part(w, gpus, sharded) / 4,
}

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


def by_fills(lengths, capacity):
    return fitted(lengths, capacity, longest_first(lengths), fullest)


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


def worst_fit(lengths, capacity):
    rows = longest_first(lengths)
    return fitted(lengths, capacity, rows, lambda lines, fills: min(lines, key=fills.__getitem__))


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


def numbered_after_sorting(lengths, capacity):
    ordered = sorted(lengths, reverse=True)
    return by_fills(ordered, capacity)


def sorts_its_argument(lengths, capacity):
    lengths.sort(reverse=True)
    return by_fills(lengths, capacity)


RIGHT["best_fit"] = {
    "by how full the lines are": by_fills,
    "by what is left of the lines": by_space_left,
    "ties broken the other way": last_of_the_fullest,
}
WRONG["best_fit"] = {
    "in the order they come": lambda lengths, capacity: (
        fitted(lengths, capacity, range(len(lengths)), fullest)
    ),
    "shortest first": lambda lengths, capacity: (
        fitted(lengths, capacity, longest_first(lengths)[::-1], fullest)
    ),
    "the first line in which it fits": lambda lengths, capacity: (
        fitted(lengths, capacity, longest_first(lengths), lambda lines, fills: lines[0])
    ),
    "the emptiest line": worst_fit,
    "only the last line": next_fit,
    "a line is never quite full": lambda lengths, capacity: by_fills(lengths, capacity - 1),
    "one token too many": lambda lengths, capacity: by_fills(lengths, capacity + 1),
    "lengths in place of row numbers": lambda lengths, capacity: (
        [[lengths[row] for row in line] for line in by_fills(lengths, capacity)]
    ),
    "rows that are too long dropped": lambda lengths, capacity: (
        [line for line in by_fills(lengths, capacity) if lengths[line[0]] <= capacity]
    ),
    "padded, not packed": padded,
    "numbers of the sorted rows": numbered_after_sorting,
    "the last row is lost": lambda lengths, capacity: by_fills(lengths[:-1], capacity),
    "a line for each row": lambda lengths, capacity: [[row] for row in range(len(lengths))],
    "only the number of lines": lambda lengths, capacity: len(by_fills(lengths, capacity)),
    "its argument sorted in place": sorts_its_argument,
}

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


def thrown_away(trainer, sampler, cap):
    weight = ratio(trainer, sampler)
    return torch.where(weight > cap, 0.0, weight)


def of_the_sequence(trainer, sampler, cap):
    whole = (trainer - sampler).sum(-1, keepdim=True).exp().clamp(max=cap)
    return whole.expand_as(trainer).detach()


def summing_to_one(trainer, sampler, cap):
    weight = clamped(trainer, sampler, cap)
    return weight / weight.mean()


RIGHT["tis_weight"] = {
    "exponential of the difference, clamped": clamped,
    "minimum of ratio and cap": by_minimum,
    "capped before the exponential": capped_in_logarithms,
}
WRONG["tis_weight"] = {
    "upside down": lambda new, old, cap: clamped(old, new, cap),
    "not truncated": lambda new, old, cap: ratio(new, old),
    "truncated from below, too": lambda new, old, cap: ratio(new, old).clamp(1 / cap, cap),
    "never below 1": lambda new, old, cap: ratio(new, old).clamp(1, cap),
    "the cap from below": lambda new, old, cap: ratio(new, old).clamp(min=cap),
    "clipped as PPO's ratio": lambda new, old, cap: ratio(new, old).clamp(0.8, 1.2),
    "what passes the cap is thrown away": thrown_away,
    "the difference without its exponential": lambda new, old, cap: (new - old).clamp(max=cap).detach(),
    "the cap on the logarithm": lambda new, old, cap: (new - old).clamp(max=cap).exp().detach(),
    "one weight for the sequence": of_the_sequence,
    "divided by its mean": summing_to_one,
    "the ratio of log-probs": lambda new, old, cap: (new / old).clamp(max=cap).detach(),
    "a gradient flows through it": lambda new, old, cap: (new - old).exp().clamp(max=cap),
    "the cap is always 2": lambda new, old, cap: clamped(new, old, 2.0),
}
