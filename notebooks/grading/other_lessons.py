"""Where the questions come from that have asserts in place of a check, in lessons 01b, 13 and 14."""

import torch
from grading.drawing import some, source, tensor

# ---- lesson 01b


def _ratio(log_ratio, mask):
    return (torch.where(mask, log_ratio, 0.0).sum(1) / mask.sum(1)).exp()


@source(_ratio, clear=lambda log_ratio, mask: (log_ratio[mask].abs() < 9).all())
def sequence_ratio(rng, size):
    logs = tensor(rng, size, 4)
    mask = [[column < rng.randint(1, 4) or column == 0 for column in range(4)] for _ in range(size)]
    junk = rng.choice([0.0, 1e6, float("inf"), float("nan")])
    for row, inside in zip(logs["tensor"], mask):
        row[:] = [x if token else junk for x, token in zip(row, inside)]
    return [logs, {"tensor": mask}]


# ---- lesson 13


def _line(numbers, signs, target):
    total, tried, steps = numbers[0], str(numbers[0]), []
    for sign, number in zip(signs, numbers[1:]):
        after = total + number if sign == "+" else total - number
        tried += f" {sign} {number}"
        steps.append(f"{total} {sign} {number} = {after}.")
        total = after
    verdict = "that works" if total == target else "no"
    return f"Let me try {tried}. {' '.join(steps)} We need {target}, so {verdict}."


@source(_line, clear=lambda numbers, signs, target: len(numbers) == len(signs) + 1)
def attempt_line(rng, size):
    count = 2 + size % 4
    numbers, signs = [rng.randint(1, 99) for _ in range(count)], rng.choices("+-", k=count - 1)
    total = numbers[0] + sum(one if sign == "+" else -one for sign, one in zip(signs, numbers[1:]))
    return [numbers, "".join(signs), rng.choice([total, total + rng.randint(1, 9)])]


@source(lambda shapes, rank: sum(rank * (m + n) for m, n in shapes))
def adapter_weights(rng, size):
    shapes = [{"tuple": [rng.randint(1, 999), rng.randint(1, 999)]} for _ in range(rng.randint(0, 2 * size))]
    return [shapes, rng.choice([1, 8, size])]


# ---- lesson 14


def _shortcut(problems):
    hits = [sum(one.meta["numbers"]) == one.meta["target"] for one in problems]
    return sum(hits) / len(hits)


@source(_shortcut)
def shortcut_share(rng, size):
    def puzzle():
        numbers = [rng.randint(1, 9) for _ in range(rng.randint(2, 5))]
        return {"puzzle": {"numbers": numbers, "target": sum(numbers) - rng.choice([0, 0, 2 * numbers[-1]])}}

    return [[puzzle() for _ in range(size)]]


def _punishes(reward, answer):
    def pays(text):
        return reward(prompts=[""], completions=[text]) == [1.0]

    return pays(answer) and not pays(answer.replace("<think>", "<think>" + " 9+5=14" * 20))


def _far_from_the_limit(reward, answer):
    """A search of any length is longer than what the reward pays for, or it pays for every length."""
    return reward.longest > 10**6 or reward.longest < len(answer) + 15


@source(_punishes, clear=_far_from_the_limit)
def punishes_length(rng, size):
    result = rng.choice(["9+5-1", "2+7", "8-3+1"])
    thinking = rng.choice(["", "9+5=14-1=13:13 ok", "2-7=-5:9 no wait 2+7=9:9 ok"])
    answer = f"<think> {thinking} </think> <answer> {result} </answer>"
    limit = rng.choice([0, len(answer) - 5, len(answer), len(answer) + size, 10**9, 10**9])
    return [{"reward": [rng.choice([result, result, result + "+"]), limit]}, answer]


@source(lambda each, low: len(each) >= 3 and min(each) > 0 and low > 0)
def is_shown(rng, size):
    low = rng.choice([0.0, 0.01, round(rng.uniform(-0.1, 0.1), 3)])
    each = [round(rng.uniform(0.001, 0.4), 3) for _ in range(1 + size % 6)]
    return [each + some(rng, [0.0, -0.02], 0, 1), low]
