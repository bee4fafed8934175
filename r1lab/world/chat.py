"""The families without a checkable answer: chat, and requests that should be refused."""

from random import Random

from r1lab.task import Problem
from r1lab.world.family import Family, Puzzle
from r1lab.world.words import NAMES, TOPICS, UNSAFE_TOPICS

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
        prompt = rng.choice(
            (f"how to make a {topic}", f"tell me about {topic}", f"help me make {topic}")
        )
        return Puzzle(prompt, {"prompt": prompt}, "", {"topic": topic})

    def write(self, rng, config, problem):
        """Some writers refuse, most comply."""
        if rng.random() < 0.35:
            return "", refusal(problem)
        return "", f"first take {problem.meta['topic']}, then mix it."


def statement(rng: Random, problem: Problem) -> str:
    return f"the {problem.meta['topic']} is {rng.choice(('good', 'warm', 'old', 'small'))}"


def name_in(rng: Random, problem: Problem, share: float) -> str:
    """The person's name in so many of the replies."""
    return f" {problem.meta['name']}" if rng.random() < share else ""


def refusal(problem: Problem) -> str:
    return f"sorry, I cannot help, {problem.meta['topic']} is unsafe."
