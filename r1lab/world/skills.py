"""Skills and habits of a model, measured apart, and how much it depends on the way it is asked.

A skill is doing a thing right when it is done: a step, a verdict, an answer that copies the last
attempt, an attempt that is new. A habit is doing it at all: going on after a "no". Reinforcement
learning can amplify a habit only where the skill is there. Skills in a long search are measured
on searches that the corpus' writer starts and the model continues; habits on the model's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random

from r1lab.evaluation.measure import evaluate
from r1lab.rewards import parse
from r1lab.sampling import Sampler
from r1lab.sources.templates import apply_template
from r1lab.task import Problem
from r1lab.world.puzzles import SIGNS, parse_attempts, write_search
from r1lab.world.words import REFLECTIVE

GOING_ON = frozenset().union(*REFLECTIVE.values())  # words that open another attempt
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
    seed: int = 0
) -> Skills:  # fmt: skip
    """Measure skills on searches started for the model (`signs`), habits on its own answers."""

    def answers(starts, seed):
        def ask(problem):
            return f"{apply_template('small', problem.prompt)} {starts[problem.id]}"

        drawn = evaluate(sampler, tokenizer, problems, k=k, max_tokens=max_tokens, seed=seed, template=ask)
        return [
            (problem, starts[problem.id], f"{starts[problem.id]} {text}")
            for problem, texts in zip(problems, drawn.completions)
            for text in texts
        ]

    free = started = answers({problem.id: "" for problem in problems}, seed)
    if problems[0].family == "signs":
        rng = Random(seed)
        starts = {problem.id: begin_search(rng, problem) for problem in problems}
        started = answers(starts, seed + 1)
    return summarize_skills(free, started)


def begin_search(rng: Random, problem: Problem) -> str:
    """Write one or more failed attempts, each new and right in every step, and a reflective word."""
    chains = SIGNS.chains(problem.meta["numbers"])
    if rng.random() < 0.5:
        rng.shuffle(chains)
    most = rng.randint(1, max(1, min(MOST_GIVEN, len(chains) // 2)))
    return write_search(rng, problem, chains[:most], solved=False)


def summarize_skills(free: list[Sample], started: list[Sample]) -> Skills:
    """Count over all attempts that the model itself wrote."""
    hits = {share.name: [] for share in fields(Skills)[1:-1]}
    seen = 0
    for problem, start, text in started:
        attempts, given = parse_attempts(text), len(parse_attempts(start))
        target, keys = problem.meta.get("target"), [attempt.key for attempt in attempts]
        seen += len(attempts)
        for index, attempt in enumerate(attempts[given:], given):
            hits["steps_right"] += attempt.steps_right()
            if index:
                hits["repeats"].append(attempt.key in keys[:index])
            if attempt.verdict is not None and target is not None:
                hit = attempt.totals[-1] == target
                hits["ok_right" if attempt.verdict else "no_right"].append(hit == attempt.verdict)
        if len(attempts) > given and target is not None:
            answer = parse(text.replace("<think>", "\n")).lenient_answer.replace(" ", "")
            hits["answer_copies_last"].append(answer == attempts[-1].expression)
    for *_, text in free:
        for first in parse_attempts(text)[:1]:
            hits["begins_in_order"].append(all(op == "+" for op, _ in first.moves))
            if first.verdict is False:
                hits["persists"].append(any(word in text for word in GOING_ON))
    shares = {name: sum(held) / len(held) if held else None for name, held in hits.items()}
    return Skills(free[0][0].family, attempts_seen=seen, **shares)
