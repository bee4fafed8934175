"""Skills and habits of a model, measured apart.

A skill is doing a thing right when it is done: a step, a verdict, an answer that copies the last
attempt, an attempt that is new. A habit is doing it at all: going on after a "no". Reinforcement
learning can amplify a habit only where the skill is there. Skills in a long search are measured
on searches that the corpus' writer began and the model goes on with; habits on the model's own.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from r1lab.rewards.accuracy import lenient_answer
from r1lab.sampling import Sampler, SamplingParams
from r1lab.sources.templates import apply_template
from r1lab.task import Problem
from r1lab.world.puzzles import Attempt, parse_attempts, signs_candidates, write_attempt
from r1lab.world.words import NO, REFLECTIVE, REFLECTIVE_SHARES

MOST_BEGUN = 6  # attempts; more would leave no room for the model to go on


@dataclass(frozen=True)
class Skills:
    """Shares between 0 and 1; None where nothing of the kind was seen."""

    family: str
    steps_right: float | None
    ok_right: float | None
    no_right: float | None
    answer_copies_last: float | None
    repeats: float | None
    persists: float | None
    begins_in_order: float | None
    attempts_seen: int


def measure_skills(
    sampler: Sampler, tokenizer, problems: Sequence[Problem], *, k: int = 4, max_tokens: int = 288,
    seed: int = 0, template: str = "small",
) -> Skills:  # fmt: skip
    """Skills from searches begun for the model (`signs`), habits from its own answers."""
    own = _answers(sampler, tokenizer, problems, [""] * len(problems), k, max_tokens, seed, template)
    begun = own
    if problems[0].family == "signs":
        rng = random.Random(seed)
        starts = [begin_search(rng, problem) for problem in problems]
        begun = _answers(
            sampler, tokenizer, problems, starts, k, max_tokens, seed + 1, template
        )
    return summarize_skills(problems[0].family, own, begun)


def begin_search(rng: random.Random, problem: Problem) -> str:
    """One or more failed attempts, each new and right in every step, and a reflective word."""
    numbers, target = problem.meta["numbers"], problem.meta["target"]
    patterns = signs_candidates(numbers)
    if rng.random() < 0.5:
        rng.shuffle(patterns)
    parts = []
    for moves in patterns[: rng.randint(1, max(1, min(MOST_BEGUN, len(patterns) // 2)))]:
        text, hit = write_attempt(numbers[0], moves, target)
        if hit:
            break
        again = rng.choices(*zip(*REFLECTIVE_SHARES[problem.lang].items(), strict=True))[0]
        parts.append(f"{text} {NO[problem.lang]} {again}")
    return "<think> " + " ".join(parts)


def _answers(
    sampler, tokenizer, problems, starts: list[str], k: int, max_tokens: int, seed: int, template
) -> list[tuple[Problem, str, str]]:
    """(problem, what was begun for the model, begun and continued) of every sample."""
    prompts = [apply_template(template, problem.prompt, tokenizer) for problem in problems]
    ids = [tokenizer(f"{p} {start}").input_ids for p, start in zip(prompts, starts, strict=True)]
    params = SamplingParams(n=k, max_tokens=max_tokens, seed=seed)
    rows = []
    for first in range(0, len(ids), 64):
        span = range(first, min(first + 64, len(ids)))
        rollouts = sampler.generate([ids[i] for i in span], params, stream_ids=list(span))
        for place, completion in enumerate(rollouts.completion_ids):
            index = first + place // k
            text = tokenizer.decode(completion, skip_special_tokens=True)
            rows.append((problems[index], starts[index], f"{starts[index]} {text}"))
    return rows


def summarize_skills(
    family: str, own: list[tuple[Problem, str, str]], begun: list[tuple[Problem, str, str]]
) -> Skills:
    """Count over all attempts that the model itself wrote."""
    steps, verdicts, copies, repeats = [], {True: [], False: []}, [], []
    for problem, start, text in begun:
        attempts, given = parse_attempts(text), len(parse_attempts(start))
        for index, attempt in enumerate(attempts):
            if index < given:
                continue
            steps += attempt.steps_right()
            if attempt.verdict is not None and "target" in problem.meta:
                hit = attempt.totals[-1] == problem.meta["target"]
                verdicts[attempt.verdict].append(hit == attempt.verdict)
            seen = {(a.start, a.moves) for a in attempts[:index]}
            if index:
                repeats.append((attempt.start, attempt.moves) in seen)
        if len(attempts) > given and "target" in problem.meta:
            answer = lenient_answer(text) or ""
            copies.append(answer.replace(" ", "") == attempts[-1].expression)
    firsts = [(parse_attempts(text), text) for _, _, text in own]
    firsts = [(attempts, text) for attempts, text in firsts if attempts]
    failed = [goes_on(text) for attempts, text in firsts if attempts[0].verdict is False]
    return Skills(
        family=family,
        steps_right=_share(steps),
        ok_right=_share(verdicts[True]),
        no_right=_share(verdicts[False]),
        answer_copies_last=_share(copies),
        repeats=_share(repeats),
        persists=_share(failed),
        begins_in_order=_share([_all_plus(attempts[0]) for attempts, _ in firsts]),
        attempts_seen=sum(len(parse_attempts(text)) for _, _, text in begun),
    )


def goes_on(text: str) -> bool:
    """Does a reflective word follow the first attempt that failed?"""
    words = frozenset().union(*REFLECTIVE.values())
    pieces = text.replace("<", " <").split()
    return any(word in piece for piece in pieces for word in words)


def _all_plus(attempt: Attempt) -> bool:
    return all(op == "+" for op, _ in attempt.moves)


def _share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None
