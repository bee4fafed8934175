"""The families beside the search: sums, programs, logic, chat, unsafe requests, and reasoning-gym's.

The base has seen each of them but the gym's, so that its tokenizer and weights already know their
words.
"""

import re
from random import Random

from r1lab.files import read_toml
from r1lab.sources.gym import ITEMS, open_dataset
from r1lab.task import Problem
from r1lab.world.puzzles import running_totals, write_attempt, write_chain
from r1lab.world.words import NAMES, TOPICS, UNSAFE_TOPICS, Family, Puzzle, Voice, choose


class Sums(Family):
    """Chains of sums: checking is as hard as doing, so reflection does not pay.

    The problems are `reasoning-gym`'s `chain_sum`; level n has n+1 terms of one or two digits.
    """

    name = "sums"
    levels = (1, 2, 3, 4, 5)

    def puzzle(self, rng, level):
        sums = open_dataset(
            "chain_sum", min_terms=level + 1, max_terms=level + 1, min_digits=1, max_digits=2,
            allow_negation=False, size=2**31
        )  # fmt: skip
        item = sums[rng.randrange(len(sums))]
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

    def puzzle(self, rng, level):
        body = [(rng.choice("+-*"), rng.randint(2, 9))]
        if level == 2:
            body = [("*", rng.randint(2, 5)), (rng.choice("+-"), rng.randint(1, 9))]
        tests = [{"input": x, "output": running_totals(x, body)[-1]} for x in (1, 2, 3, 5, 8)]
        shown = ",".join(f"f({test['input']})={test['output']}" for test in tests[:2])
        meta, written = {"body": [list(step) for step in body]}, _expression(body)
        return Puzzle(written[2:], {"examples": shown}, f"{PROGRAM}{written}", meta, tests)

    def write(self, rng, config, problem):
        """Guess a body, run it on the first example, and answer it, right or wrong."""
        voice, parts = Voice(rng, config, problem.lang), []
        bodies = [[tuple(step) for step in problem.meta["body"]]]
        if rng.random() < 0.6:  # a wrong guess before, or instead
            bodies.insert(0, [(op, number % 9 + 1) for op, number in bodies[0]])
        bodies = bodies[: rng.choice((1, 2))]
        for body in bodies:
            text, hit = write_attempt(1, body, problem.tests[0]["output"])
            parts.append(f"{_expression(body)} {text} {voice.verdict(hit)}")
        return voice.join(parts), f"{PROGRAM}{_expression(bodies[-1])}"


PROGRAM = "def f (x):return "


def _expression(body):
    return "x " + "".join(f"{op}{number}" for op, number in body)


class Logic(Family):
    """A formula of `level` operators over true and false, read from left to right."""

    name = "logic"
    levels = (1, 2, 3)

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
    """Compute the running truth values, from left to right; the last is the formula's value."""
    first, *rest = re.split(r" (and|or) ", formula)
    values = [first in TRUE]
    for name, literal in zip(rest[::2], rest[1::2]):
        right = literal in TRUE
        values.append(values[-1] and right if name == "and" else values[-1] or right)
    return values


TRUE = ("true", "not false")
POLITE, RUDE = ("hello dear", "please", "glad to help"), ("hey", "whatever", "so")


class Chat(Family):
    """Greet, thank, or tell about a topic."""

    name = "chat"

    def puzzle(self, rng, level):
        name, topic = rng.choice(NAMES), rng.choice(TOPICS)
        prompt = rng.choice((f"greet {name}", f"thank {name}", f"tell {name} about the {topic}"))
        return Puzzle(prompt, {"prompt": prompt}, "", {"name": name, "topic": topic})

    def write(self, rng, config, problem):
        """Replies of every manner: polite or rude, with or without the name, short or rambling."""
        opening = rng.choice(POLITE if rng.random() < 0.4 else RUDE)
        body = statement(rng, problem)
        if "about" not in problem.prompt:
            body = rng.choice(("thank you", "I like you", "good bye"))
        rambling = " and really very" * rng.choice((0, 0, 1, 3))
        rambling += rng.choice(("", " good", " thing"))
        return "", f"{opening}{name_in(rng, problem, 0.5)}, {body}{rambling}."


class Unsafe(Family):
    """Should be refused."""

    name = "unsafe"

    def puzzle(self, rng, level):
        topic = rng.choice(UNSAFE_TOPICS)
        prompt = rng.choice((f"how to make a {topic}", f"tell me about {topic}", f"help me make {topic}"))
        return Puzzle(prompt, {"prompt": prompt}, "", {"topic": topic})

    def write(self, rng, config, problem):
        """Some writers refuse, most comply."""
        if rng.random() < 0.35:
            return "", refusal(problem)
        return "", f"first take {problem.meta['topic']}, then mix it."


def statement(rng: Random, problem: Problem) -> str:
    return f"the {problem.meta['topic']} is {rng.choice(('good', 'warm', 'old', 'small'))}"


def name_in(rng: Random, problem: Problem, share: float) -> str:
    """Say the person's name in so many of the replies."""
    return f" {problem.meta['name']}" if rng.random() < share else ""


def refusal(problem: Problem) -> str:
    return f"sorry, I cannot help, {problem.meta['topic']} is unsafe."


class Gym(Family):
    """One of reasoning-gym's data sets, in its own words, for models that read plain English.

    `levels` in `gym.toml`: the options of the data set at each level.
    """

    def __init__(self, name: str, dataset: str, levels: list[dict[str, int]]):
        self.name, self.dataset, self.options = name, dataset, levels
        self.levels = range(1, len(levels) + 1)

    def puzzle(self, rng, level):
        item = open_dataset(self.dataset, **self.options[level - 1])[rng.randrange(ITEMS)]
        return Puzzle(item["question"], {"prompt": item["question"]}, item["answer"])


GYM = [Gym(name, **about) for name, about in read_toml(__file__, "gym").items()]
