"""Skills and habits of a model, measured apart.

A skill is doing a thing right when it is done: a step, a verdict, an answer that copies the last
attempt, an attempt that is new. A habit is doing it at all: going on after a "no". Reinforcement
learning can amplify a habit only where the skill is there. Skills in a long search are measured
on searches that the corpus' writer starts and the model continues; habits on the model's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from r1lab.evaluation.measure import evaluate
from r1lab.rewards import parse
from r1lab.sampling import Sampler
from r1lab.sources.templates import apply_template
from r1lab.task import Problem
from r1lab.world.puzzles import parse_attempts, signs_candidates, write_attempt
from r1lab.world.words import NO, REFLECTIVE, REFLECTIVE_SHARES, choose

MOST_GIVEN = 6  # attempts; more would leave no room for the model to go on
# A problem, what was started for the model, and that with the model's continuation.
Sample = tuple[Problem, str, str]


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
    seed: int = 0,
) -> Skills:  # fmt: skip
    """Measure skills on searches started for the model (`signs`), habits on its own answers."""

    def answers(starts: dict[str, str], seed: int) -> list[Sample]:
        def ask(problem: Problem) -> str:
            return f"{apply_template('small', problem.prompt)} {starts[problem.id]}"

        drawn = evaluate(
            sampler, tokenizer, problems, k=k, max_tokens=max_tokens, seed=seed, template=ask
        )
        return [
            (problem, starts[problem.id], f"{starts[problem.id]} {text}")
            for problem, texts in zip(problems, drawn.completions, strict=True)
            for text in texts
        ]

    family = problems[0].family
    own = started = answers({problem.id: "" for problem in problems}, seed)
    if family == "signs":
        rng = Random(seed)
        starts = {problem.id: begin_search(rng, problem) for problem in problems}
        started = answers(starts, seed + 1)
    return summarize_skills(family, own, started)


def begin_search(rng: Random, problem: Problem) -> str:
    """Write one or more failed attempts, each new and right in every step, and a reflective word."""
    numbers, target = problem.meta["numbers"], problem.meta["target"]
    patterns = signs_candidates(numbers)
    if rng.random() < 0.5:
        rng.shuffle(patterns)
    parts = []
    for moves in patterns[: rng.randint(1, max(1, min(MOST_GIVEN, len(patterns) // 2)))]:
        attempt, hit = write_attempt(numbers[0], moves, target)
        if hit:
            break
        again = choose(rng, REFLECTIVE_SHARES[problem.lang])
        parts.append(f"{attempt} {NO[problem.lang]} {again}")
    return "<think> " + " ".join(parts)


def summarize_skills(family: str, own: list[Sample], started: list[Sample]) -> Skills:
    """Count over all attempts that the model itself wrote."""
    steps, verdicts, copies, repeats, seen = [], {True: [], False: []}, [], [], 0
    for problem, start, text in started:
        attempts, given = parse_attempts(text), len(parse_attempts(start))
        seen += len(attempts)
        keys = [attempt.key for attempt in attempts]
        repeats += [keys[index] in keys[:index] for index in range(max(1, given), len(keys))]
        steps += [right for attempt in attempts[given:] for right in attempt.steps_right()]
        target = problem.meta.get("target")
        if target is None or len(attempts) <= given:
            continue
        for attempt in attempts[given:]:
            if attempt.verdict is not None:
                hit = attempt.totals[-1] == target
                verdicts[attempt.verdict].append(hit == attempt.verdict)
        answer = parse(text).lenient_answer
        copies.append(answer.replace(" ", "") == attempts[-1].expression)
    firsts = [(attempts[0], text) for *_, text in own if (attempts := parse_attempts(text))]
    return Skills(
        family=family,
        steps_right=_share(steps),
        ok_right=_share(verdicts[True]),
        no_right=_share(verdicts[False]),
        answer_copies_last=_share(copies),
        repeats=_share(repeats),
        persists=_share([goes_on(text) for first, text in firsts if first.verdict is False]),
        begins_in_order=_share([all(op == "+" for op, _ in first.moves) for first, _ in firsts]),
        attempts_seen=seen,
    )


def goes_on(text: str) -> bool:
    """Does it hold a reflective word?"""
    return any(word in text for words in REFLECTIVE.values() for word in words)


def _share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None
