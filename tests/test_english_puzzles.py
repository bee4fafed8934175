"""Lesson 13's task: its writers are right in what they compute, and never show a held-out puzzle."""

from collections import Counter

import english_puzzles
from english_puzzles import LEVELS, find_attempts, is_right, puzzles, task, value

EXAMPLES = list(english_puzzles.cold_start(600))
BY_PROMPT = {p.prompt: p for level in LEVELS for part in puzzles(level) for p in part}


def test_each_puzzle_has_one_answer_and_the_check_accepts_it():
    for level in LEVELS:
        for problem in puzzles(level)[0][:40] + puzzles(level)[1]:
            right = [e for e in english_puzzles.expressions(problem.meta["numbers"])
                     if is_right(f"<think> a </think> <answer> {e} </answer>", problem)]  # fmt: skip
            assert right == [problem.solution]


def test_no_held_out_puzzle_is_trained_on():
    tested = {problem.prompt for problem in task.test}
    drawn = {problem.prompt for rollout in range(50) for problem in task.draw(0, rollout, 8)}
    assert len(tested) == len(task.test) == 72
    assert tested.isdisjoint(drawn | {example["prompt"] for example in EXAMPLES})


def test_what_the_writers_compute_is_right_and_is_read_back():
    seen = Counter()
    for example in EXAMPLES:
        problem = BY_PROMPT[example["prompt"]]
        attempts = find_attempts(problem, example["completion"])
        assert example["completion"].count("Let me try") == len(attempts)
        assert len({attempt.key for attempt in attempts}) == len(attempts)
        for attempt in attempts:
            assert all(attempt.steps_right()) and attempt.totals[-1] == value(attempt.expression)
            assert attempt.verdict == (attempt.totals[-1] == problem.meta["target"])
        seen[len(attempts)] += 1
        if attempts and attempts[-1].verdict:
            assert is_right(example["completion"], problem)
    assert 0.2 < seen[0] / len(EXAMPLES) < 0.4 and 0.4 < seen[1] / len(EXAMPLES) < 0.7


def test_the_reward_is_the_check():
    completions = [example["completion"] for example in EXAMPLES[:50]]
    asked = [BY_PROMPT[example["prompt"]] for example in EXAMPLES[:50]]
    columns = {name: [p.meta[name] for p in asked] for name in ("numbers", "target")}
    paid = english_puzzles.rightness(completions, **columns)
    assert paid == [float(is_right(*row)) for row in zip(completions, asked)]
    assert 0 < sum(paid) < 50
