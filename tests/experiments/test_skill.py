"""A base without a skill: what its corpus says, and the arms on tiny random models."""

from itertools import islice
from random import Random

import pytest

from r1lab.run import Run
from r1lab.world.puzzles import parse_attempts
from tests.experiments.skill import RL, Skill, documents, skill, written_totals
from tests.small_run import tiny_model

QUICK = {"questions": 2, "group_size": 2, "minibatches": 1, "rollouts": 1, "final_samples": 2}


def attempts_of(fault):
    """All attempts in 400 documents."""
    for row in islice(documents("a seed", fault), 1_000):
        yield from parse_attempts(row["completion"])


@pytest.mark.parametrize(
    "fault, steps, verdicts", [("sound", 1.0, 1.0), ("verdicts", 1.0, 0.5), ("steps", 0.75, 1.0)]
)
def test_a_corpus_lacks_one_skill_and_no_other(fault, steps, verdicts):
    attempts = list(attempts_of(fault))
    right = [step for attempt in attempts for step in attempt.steps_right()]
    judged = [(attempt.totals[-1] == attempt.stated_target) == attempt.verdict for attempt in attempts]
    assert sum(right) / len(right) == pytest.approx(steps, abs=0.05)
    assert sum(judged) / len(judged) == pytest.approx(verdicts, abs=0.08)


def test_what_follows_a_slip_goes_on_from_what_is_written():
    moves = (("+", 3), ("-", 1), ("+", 4))
    assert written_totals(Random(0), 5, moves, 0.0) == [8, 7, 11]
    slipped = written_totals(Random(0), 5, moves, 1.0)
    assert all(abs(total - (before + change)) == 1
               for total, before, change in zip(slipped, (5, *slipped), (3, -1, 4)))  # fmt: skip


def test_every_base_reads_its_corpus_and_gets_the_same_rl(tmp_path, alone):
    config = Skill(
        base=tiny_model(tmp_path / "tiny"), seed=3, processes=1, problems=1,
        documents={"going on": 30, "remedy": 10}, rl=RL | QUICK | {"caps": [[0, 8]]},
    )  # fmt: skip
    values = skill(config, tmp_path / "arms")
    arms = {"sound", "verdicts", "steps", "verdicts_taught", "steps_taught"}
    assert {name.partition("/")[0] for name in values} == arms | {"levels"}
    assert values["levels/gain"].tolist() == [2, 3, 4]
    runs = {place.parent.name: Run(place.parent) for place in (tmp_path / "arms").glob("*/summary.json")}
    assert runs["sound"].config["model"] == str(runs["sound going on"].model)
    assert runs["steps_taught"].config["model"] == str(runs["steps remedy"].model)
    assert runs["steps remedy"].config["model"] == runs["steps"].config["model"]
    assert runs["steps remedy"].config["data"] == runs["verdicts remedy"].config["data"]
