"""The strict grader on generated forms of real gold answers and of our own."""

import json
import re
from pathlib import Path

import pytest
from grader_forms import question, right_forms
from grader_wrong_forms import wrong_forms

from r1lab.rewards import accuracy, guard
from r1lab.rewards.spelling import TABLE

ROOT = Path(__file__).parent.parent
PUBLIC = ROOT.parent / "shared" / "data" / "grader_gold.jsonl"


@pytest.fixture(scope="module", params=["own", "public"])
def rows(request) -> list[dict]:
    path = ROOT / "data" / "grader_gold_own.jsonl" if request.param == "own" else PUBLIC
    if not path.exists():
        pytest.skip("the gold answers of public benchmarks are not beside this repository")
    return [json.loads(line) for line in path.read_text().splitlines()]


def graded(cases: list[tuple[dict, str]]) -> list[tuple[str, str]]:
    """(gold, form) of those cases that the strict reward accepts."""
    scores = accuracy(
        prompts=[question(row) for row, _ in cases],
        completions=[f"<think> so </think> <answer>{form}</answer>" for _, form in cases],
        solution=[row["gold"] for row, _ in cases])
    return [(row["gold"], form) for (row, form), score in zip(cases, scores) if score == 1.0]


def test_every_gold_answer_is_accepted_as_written(rows):
    assert len(graded([(row, row["gold"]) for row in rows])) == len(rows)


def test_at_most_one_right_form_in_a_hundred_is_refused(rows):
    cases = [(row, form) for row in rows for form in right_forms(row)]
    refused = {(row["gold"], form) for row, form in cases} - set(graded(cases))
    print(f"{len(refused)} of {len(cases)} right forms refused: {sorted(refused)[:40]}")
    assert len(refused) <= 0.01 * len(cases)


SENTENCES = (
    "So the answer is {}.", "**Answer:** {}", "Adding up gives {}.", "Therefore, we get {}.",
    "\\[ \\boxed{{{}}} \\]", "The final answer is: **{}**", "#### {}", "Hence the total is {}.",
)  # fmt: skip


def test_a_sentence_that_only_says_the_answer_is_accepted(rows):
    cases = [(row, sentence.format(row["gold"])) for row in rows for sentence in SENTENCES]
    refused = {(row["gold"], form) for row, form in cases} - set(graded(cases))
    print(f"{len(refused)} of {len(cases)} sentences refused: {sorted(refused)[:20]}")
    assert len(refused) <= 0.01 * len(cases)


def test_no_wrong_form_is_accepted(rows):
    cases = [(row, form) for row in rows for form in wrong_forms(row)]
    assert len(cases) > 50 * len(rows)
    assert graded(cases) == []


PARTS = [part for part in TABLE.values() if isinstance(part, list)]
RULES = [pytest.param(rule, id=rule["name"]) for part in PARTS for rule in part]


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_of_spelling_does_what_its_example_shows(rule):
    before, _, after = rule["example"].replace("⏎", "\n").rpartition(" → ")
    assert re.sub(rule["find"], rule["new"], before) == after != before


@pytest.mark.parametrize(("gold", "answer"), re.findall("`(.+)` is `(.+)`", guard.__doc__))
def test_each_form_of_the_guard_is_read_as_its_example_shows(gold, answer):
    assert guard.equivalent(gold, answer) is True
