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


def half_an_optimizer(weights, gpus, sharded):
    return with_sizes(weights, gpus, sharded, EACH | {"optimizer": 4})


def in_bfloat16(weights, gpus, sharded):
    return with_sizes(weights, gpus, sharded, {"weights": 2, "gradients": 2, "optimizer": 8})


def with_a_reference(weights, gpus, sharded):
    return part_by_part(weights, gpus, sharded) + 4 * weights


def all_or_nothing(weights, gpus, sharded):
    return 16 * weights / gpus if sharded else 16.0 * weights


def every_share_of_every_gpu(weights, gpus, sharded):
    return part_by_part(weights, gpus, sharded) * gpus


def what_is_left_over(weights, gpus, sharded):
    return sum(
        size * weights / (1 if name in sharded else gpus) for name, size in EACH.items()
    )


def what_is_sharded_only(weights, gpus, sharded):
    return sum(EACH[name] for name in sharded) * weights / gpus


def weights_stay_whole(weights, gpus, sharded):
    return part_by_part(weights, gpus, set(sharded) - {"weights"})


def one_gpu_too_few(weights, gpus, sharded):
    return part_by_part(weights, max(1, gpus - 1), sharded)


RIGHT["bytes_on_gpu"] = {
    "part by part": part_by_part,
    "what is whole and what is shared": whole_and_shares,
    "by conditions": by_conditions,
}
WRONG["bytes_on_gpu"] = {
    "one number of Adam's two": half_an_optimizer,
    "weights and gradients of two bytes": in_bfloat16,
    "the reference policy counted in": with_a_reference,
    "all is sharded as soon as anything is": all_or_nothing,
    "the sum over all GPUs": every_share_of_every_gpu,
    "divided where it stands whole": what_is_left_over,
    "what stands whole forgotten": what_is_sharded_only,
    "the weights are never sharded": weights_stay_whole,
    "the GPU itself is not counted": one_gpu_too_few,
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


def as_they_come(lengths, capacity):
    return fitted(lengths, capacity, range(len(lengths)), fullest)


def shortest_first(lengths, capacity):
    return fitted(lengths, capacity, longest_first(lengths)[::-1], fullest)


def first_fit(lengths, capacity):
    return fitted(lengths, capacity, longest_first(lengths), lambda lines, fills: lines[0])


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


def never_quite_full(lengths, capacity):
    return by_fills(lengths, capacity - 1)


def one_token_too_many(lengths, capacity):
    return by_fills(lengths, capacity + 1)


def lengths_in_place_of_rows(lengths, capacity):
    return [[lengths[row] for row in line] for line in by_fills(lengths, capacity)]


def long_rows_dropped(lengths, capacity):
    return [line for line in by_fills(lengths, capacity) if lengths[line[0]] <= capacity]


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


def last_row_lost(lengths, capacity):
    return by_fills(lengths[:-1], capacity)


def sorts_its_argument(lengths, capacity):
    lengths.sort(reverse=True)
    return by_fills(lengths, capacity)


RIGHT["best_fit"] = {
    "by how full the lines are": by_fills,
    "by what is left of the lines": by_space_left,
    "ties broken the other way": last_of_the_fullest,
}
WRONG["best_fit"] = {
    "in the order they come": as_they_come,
    "shortest first": shortest_first,
    "the first line in which it fits": first_fit,
    "the emptiest line": worst_fit,
    "only the last line": next_fit,
    "a line is never quite full": never_quite_full,
    "one token too many": one_token_too_many,
    "lengths in place of row numbers": lengths_in_place_of_rows,
    "rows that are too long dropped": long_rows_dropped,
    "padded, not packed": padded,
    "numbers of the sorted rows": numbered_after_sorting,
    "the last row is lost": last_row_lost,
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


def on_both_sides(trainer, sampler, cap):
    return ratio(trainer, sampler).clamp(1 / cap, cap)


def as_ppo_clips(trainer, sampler, cap):
    return ratio(trainer, sampler).clamp(0.8, 1.2)


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
    "upside down": lambda trainer, sampler, cap: clamped(sampler, trainer, cap),
    "not truncated": lambda trainer, sampler, cap: ratio(trainer, sampler),
    "truncated from below, too": on_both_sides,
    "never below 1": lambda trainer, sampler, cap: ratio(trainer, sampler).clamp(1, cap),
    "the cap from below": lambda trainer, sampler, cap: ratio(trainer, sampler).clamp(min=cap),
    "clipped as PPO's ratio": as_ppo_clips,
    "what passes the cap is thrown away": thrown_away,
    "the difference without its exponential": lambda trainer, sampler, cap: (
        (trainer - sampler).clamp(max=cap).detach()
    ),
    "the cap on the logarithm": lambda trainer, sampler, cap: (
        (trainer - sampler).clamp(max=cap).exp().detach()
    ),
    "one weight for the sequence": of_the_sequence,
    "divided by its mean": summing_to_one,
    "the ratio of log-probs": lambda trainer, sampler, cap: (
        (trainer / sampler).clamp(max=cap).detach()
    ),
    "a gradient flows through it": lambda trainer, sampler, cap: (
        (trainer - sampler).exp().clamp(max=cap)
    ),
    "the cap is always 2": lambda trainer, sampler, cap: clamped(trainer, sampler, 2.0),
}
