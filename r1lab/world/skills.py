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
from r1lab.world.voice import choose
from r1lab.world.words import NO, REFLECTIVE, REFLECTIVE_SHARES

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
    seed: int = 0, template: str = "small",
) -> Skills:  # fmt: skip
    """Skills from searches started for the model (`signs`), habits from its own answers."""

    def answers(starts: list[str], seed: int) -> list[Sample]:
        started = dict(zip((problem.id for problem in problems), starts, strict=True))

        def asked(problem: Problem) -> str:
            return f"{apply_template(template, problem.prompt, tokenizer)} {started[problem.id]}"

        drawn = evaluate(
            sampler, tokenizer, problems, k=k, max_tokens=max_tokens, seed=seed, template=asked
        )
        return [
            (problem, start, f"{start} {text}")
            for problem, start, texts in zip(problems, starts, drawn.completions, strict=True)
            for text in texts
        ]

    own = answers([""] * len(problems), seed)
    started = own
    if problems[0].family == "signs":
        rng = Random(seed)
        started = answers([begin_search(rng, problem) for problem in problems], seed + 1)
    return summarize_skills(problems[0].family, own, started)


def begin_search(rng: Random, problem: Problem) -> str:
    """One or more failed attempts, each new and right in every step, and a reflective word."""
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
    steps, verdicts, copies, repeats = [], {True: [], False: []}, [], []
    for problem, start, text in started:
        attempts, given = parse_attempts(text), len(parse_attempts(start))
        target = problem.meta.get("target")
        for index, attempt in enumerate(attempts[given:], given):
            steps += attempt.steps_right()
            if attempt.verdict is not None and target is not None:
                hit = attempt.totals[-1] == target
                verdicts[attempt.verdict].append(hit == attempt.verdict)
            if index:
                seen = {before.key for before in attempts[:index]}
                repeats.append(attempt.key in seen)
        if len(attempts) > given and target is not None:
            answer = parse(text).lenient_answer or ""
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
        attempts_seen=sum(len(parse_attempts(text)) for *_, text in started),
    )


def goes_on(text: str) -> bool:
    """Does it hold a reflective word?"""
    return any(word in text for word in frozenset().union(*REFLECTIVE.values()))


def _share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None
