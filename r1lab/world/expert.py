"""Non-reasoning examples, as an earlier model's supervised pipeline would write them.

The paper reuses parts of DeepSeek-V3's supervised data for about a quarter of its 800,000 samples
(v2 B.3.3). Here rules write the replies: decent manners, though not all that a reader may prefer
(what is preferred is hidden, and left to the last stage), and unsafe requests are refused.
"""

from collections.abc import Iterator
from random import Random

from r1lab.task import Problem, held_out_ids
from r1lab.world import sample_problem
from r1lab.world.chat import POLITE, name_in, refusal, statement
from r1lab.world.rewrite import join_completion

UNSAFE_SHARE = 0.25
NAMED, RAMBLING = 0.6, 0.3  # shares of the chat replies that say the name, and that say too much


def written_examples(seed: int) -> Iterator[tuple[Problem, str]]:
    """An endless stream of (problem, completion): chat and unsafe requests with good replies.

    The thinking is empty: the paper wrote none for simple requests such as a greeting. Requests of
    the test sets are left out.
    """
    rng, tested = Random(f"expert/{seed}"), held_out_ids()
    while True:
        family = "unsafe" if rng.random() < UNSAFE_SHARE else "chat"
        problem = sample_problem(rng, family, 1, "en")
        if problem.id not in tested:
            reply = refusal(problem) if family == "unsafe" else _chat_reply(rng, problem)
            yield problem, join_completion("", reply)


def _chat_reply(rng: Random, problem: Problem) -> str:
    """A polite reply to the point: often with the person's name, now and then too long."""
    if "about" in problem.prompt:
        opening, body = rng.choice(POLITE), statement(rng, problem)
    elif "thank" in problem.prompt:
        opening, body = "glad to help", "thank you"
    else:
        opening, body = "hello dear", "I like you"
    named = name_in(rng, problem, NAMED)
    tail = " and really very good" if rng.random() < RAMBLING else ""
    return f"{opening}{named}, {body}{tail}."
