"""The entries with which the board of lesson 14 starts: `python notebooks/capstone.py reward
notebooks/first_entries.py:rewards`, and likewise `fault …:arm` and `claim …:claim`."""

from dataclasses import replace

from capstone import OURS, Arm, Claim, healthy

import r1lab
from r1lab.rewards import accuracy, random
from r1lab.world.puzzles import parse_attempts


def second_try(completions, **columns):
    """1 for a right answer that needed a second try, else 0."""
    right = accuracy(completions=completions, **columns)
    tries = [len(parse_attempts(text)) for text in completions]
    return [float(ok == 1 and n > 1) for ok, n in zip(right, tries)]


rewards = OURS | {"second try": second_try}


def hurried(completions, **columns):
    """Our accuracy, with a deadline: a long answer is wrong."""
    right = accuracy(completions=completions, **columns)
    short = [len(text) < 60 for text in completions]
    return [float(ok == 1 and in_time) for ok, in_time in zip(right, short)]


arm = Arm(replace(healthy().task, rewards=OURS | {"accuracy": hurried}))

rows = [
    {"question": f"compute {a}+{b}-{c}", "answer": str(a + b - c)}
    for a in range(3, 10)
    for b in range(3, 10)
    for c in range(1, 4)
]
asking = {"rewards": OURS, "test": 32, "template": "small", "name": "sums"}
paid = r1lab.Task.from_dataset(rows, **asking)
unpaid = replace(paid, rewards=OURS | {"accuracy": random})
sentence = "Only a reward that knows the answer teaches sums."
claim = Claim(sentence, treatment=Arm(paid), control=Arm(unpaid))
