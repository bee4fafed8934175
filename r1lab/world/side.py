"""The families beside the search: sums, programs and logic, which later stages train and measure.

The base has seen each of them, so that its tokenizer and weights already know their words.
"""

import re
from functools import lru_cache

from r1lab.world.family import Family, Puzzle
from r1lab.world.puzzles import Moves, parse_attempts, running_totals, write_attempt, write_chain
from r1lab.world.voice import Voice, choose


@lru_cache
def _chain_sums(level: int):
    # Imported here: reasoning-gym brings a hundred data sets and takes seconds to import.
    from reasoning_gym import create_dataset

    return create_dataset(
        "chain_sum", min_terms=level + 1, max_terms=level + 1, min_digits=1, max_digits=2,
        allow_negation=False, size=2**31, seed=0,
    )  # fmt: skip


class Sums(Family):
    """Chains of sums: checking is as hard as doing, so reflection does not pay.

    The problems are `reasoning-gym`'s `chain_sum`; level n has n+1 terms of one or two digits.
    """

    name = "sums"
    levels = (1, 2, 3, 4, 5)
    questions = {"en": "compute {terms}", "zh": "求{terms}", "fr": "calcule {terms}"}
    rephrased = {
        "en": {"turned round": "{terms} is", "new words": "total {terms}"},
        "zh": {"turned round": "{terms}是", "new words": "总{terms}"},
    }

    def puzzle(self, rng, level):
        item = _chain_sums(level)[rng.randrange(2**31)]
        terms = item["metadata"]["expression"].replace(" ", "")
        meta = {"terms": [int(term) for term in re.findall(r"[-+]?\d+", terms)]}
        return Puzzle(terms, {"terms": terms}, item["answer"], meta)

    def write(self, rng, config, problem):
        start, *rest = problem.meta["terms"]
        style = choose(rng, config.sums_styles)
        if style == "direct":
            return "", problem.solution
        if style == "skipping" and len(rest) > 1:
            middle = rng.randint(1, len(rest) - 1)
            start, rest = start + sum(rest[:middle]), rest[middle:]
        moves = tuple(("+" if term >= 0 else "-", abs(term)) for term in rest)
        right = write_chain(start, moves)
        if style != "slip corrected":
            return right, problem.solution
        voice = Voice(rng, config, problem.lang)
        slipping = moves[: rng.randint(1, len(moves))]
        before, _, total = write_chain(start, slipping).rpartition("=")
        slip = int(total) + rng.choice((-10, -1, 1, 10))
        return voice.join([f"{before}={slip} {voice.verdict(False)}", right]), problem.solution


class Programs(Family):
    """Find f from two examples: level 1 is one operation on x, level 2 is two."""

    name = "programs"
    levels = (1, 2)
    questions = {"en": "program {examples}", "zh": "程{examples}", "fr": "programme {examples}"}
    attempts = staticmethod(parse_attempts)

    def puzzle(self, rng, level):
        body = [(rng.choice("+-*"), rng.randint(2, 9))]
        if level == 2:
            body = [("*", rng.randint(2, 5)), (rng.choice("+-"), rng.randint(1, 9))]
        tests = [{"input": x, "output": running_totals(x, body)[-1]} for x in (1, 2, 3, 5, 8)]
        shown = ",".join(f"f({test['input']})={test['output']}" for test in tests[:2])
        return Puzzle(
            key="".join(f"{op}{number}" for op, number in body),
            slots={"examples": shown},
            solution=_program(body),
            meta={"body": [list(step) for step in body]},
            tests=tests,
        )

    def write(self, rng, config, problem):
        """Guess a body, run it on the first example, and answer it, right or wrong."""
        voice = Voice(rng, config, problem.lang)
        bodies = [[tuple(step) for step in problem.meta["body"]]]
        if rng.random() < 0.6:  # a wrong guess before, or instead
            bodies.insert(0, [(op, number % 9 + 1) for op, number in bodies[0]])
        bodies = bodies[: rng.choice((1, 2))]
        parts = []
        for body in bodies:
            text, hit = write_attempt(1, body, problem.tests[0]["output"])
            parts.append(f"{_expression(body)} {text} {voice.verdict(hit)}")
        return voice.join(parts), _program(bodies[-1])


def _expression(body: Moves) -> str:
    return "x " + "".join(f"{op}{number}" for op, number in body)


def _program(body: Moves) -> str:
    return f"def f (x):return {_expression(body)}"


class Logic(Family):
    """A formula of `level` operators over true and false, read from left to right."""

    name = "logic"
    levels = (1, 2, 3)
    questions = {"en": "is {formula}", "zh": "真{formula}", "fr": "est {formula}"}

    def puzzle(self, rng, level):
        literals = ("true", "false", "not true", "not false")
        formula = rng.choice(literals)
        for _ in range(level):
            formula += f" {rng.choice(('and', 'or'))} {rng.choice(literals)}"
        value = str(logic_values(formula)[-1]).lower()
        return Puzzle(formula, {"formula": formula}, value, {"formula": formula})

    def write(self, rng, config, problem):
        values = [str(value).lower() for value in logic_values(problem.meta["formula"])]
        if rng.random() < 0.5:
            guesses = rng.random() >= 0.6
            return "", rng.choice(("true", "false")) if guesses else problem.solution
        return ", ".join(values), values[-1]


def logic_values(formula: str) -> list[bool]:
    """The running truth values, read from left to right; the last is the formula's value."""
    first, *rest = re.split(r" (and|or) ", formula)
    values = [_literal(first)]
    for operation, literal in zip(rest[::2], rest[1::2]):
        before, value = values[-1], _literal(literal)
        values.append(before and value if operation == "and" else before or value)
    return values


def _literal(text: str) -> bool:
    return text in ("true", "not false")
