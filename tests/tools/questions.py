"""`python -m tests.tools.questions` draws the questions that `r1lab.lab.check` asks."""

import json

from grading.questions import BY_RULE, questions

from r1lab.files import write_text
from r1lab.lab.check import engine

SEED = 1  # of the questions that a learner's own check asks


def write():
    """Draw the questions of the learners' checks again, behind those that were written by hand."""
    lines = []
    for name in engine.EXERCISES:
        by_hand = [question for question in engine.EXAMPLES.get(name, []) if question[0] != BY_RULE]
        asked = [*by_hand, *questions(name, SEED)]
        short = [json.dumps(question, ensure_ascii=False, separators=(",", ":")) for question in asked]
        rows = ",\n".join("  " + question for question in short)
        lines.append(f" {json.dumps(name)}: [\n{rows}\n ]")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    write_text(engine.Path(engine.__file__).with_name("examples.json"), text)


if __name__ == "__main__":
    write()
