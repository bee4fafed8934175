"""Evaluations: what is measured, that parts join to the whole, and the block for the summary."""

import itertools
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1lab.errors import InputError
from r1lab.evaluation.measure import Evaluation, _number_answers, evaluate, measure, merge
from r1lab.world import find_attempts
from r1lab.world.bases import build_tokenizer
from r1lab.world.puzzles import Attempt
from r1lab.sampling import Rollouts, Sampler
from r1lab.sources.templates import apply_template
from r1lab.task import Problem, Task

TOKENIZER = build_tokenizer()


def puzzle(number: int, level: int) -> Problem:
    """Make 13 from 9, 5 and 1: the one right answer is 9+5-1."""
    meta = {"numbers": [9, 5, 1], "target": 13}
    question = f"make 13 from 9,5,1 {number}"  # numbered, so that each prompt is its own
    return Problem(f"p{number}", "signs", level, "en", question, "9+5-1", meta=meta)


RIGHT = "<think> 9+5=14+1=15:13 no wait 9+5=14-1=13:13 ok </think> <answer> 9+5-1 </answer>"
UNCLOSED = "9+5=14-1=13:13 ok <answer> 9+5-1"
WRONG = "<think> 9-5=4+1=5:13不等9-5=4+1=5:13 no </think> <answer> 9-5+1 </answer>"
CUT = "<think> 9+5=14+1=15:13 no wait 9+5=14-1"


class ScriptedSampler(Sampler):
    """Draws one of the scripts for each sample, keyed as real samplers key their streams."""

    def __init__(self, scripts):
        self.scripts, self.prompts = scripts, []

    def generate(self, prompt_ids, params, stream_ids=None):
        self.prompts += prompt_ids
        texts = [
            random.Random(f"{params.seed}/{stream}/{sample}").choice(self.scripts)
            for stream in stream_ids
            for sample in range(params.n)
        ]
        ids = [TOKENIZER.encode(text) + [TOKENIZER.eos_token_id] * (text != CUT) for text in texts]
        finish = ["length" if text == CUT else "stop" for text in texts]
        return Rollouts(prompt_ids, ids, [], [], finish, 0)


def run(problems, scripts=(RIGHT, UNCLOSED, WRONG, CUT), **options) -> Evaluation:
    options = {"k": 4, "max_tokens": 100, "attempts": find_attempts, **options}
    return evaluate(ScriptedSampler(scripts), TOKENIZER, problems, **options)


PROBLEMS = [puzzle(number, level=1 + number % 3) for number in range(9)]


def same(one: Evaluation, other: Evaluation) -> bool:
    arrays = [(one[name], other[name]) for name in one.measures]
    arrays += [(one.levels, other.levels), (one.index, other.index)]
    texts = (one.ids, one.completions) == (other.ids, other.completions)
    return texts and all(np.array_equal(a, b) for a, b in arrays)


@pytest.mark.parametrize("completion, expected", [
    (RIGHT, dict(correct=1, strict=1, format=1, answer="9+5-1", reflection=1, mixed=0)),
    (RIGHT, dict(attempts=2, repeats=0, searches=1, in_order=1)),
    (UNCLOSED, dict(correct=1, strict=0, format=0, answer="9+5-1", attempts=1, searches=0)),
    (WRONG, dict(correct=0, strict=0, format=1, answer="9-5+1", reflection=1, mixed=1)),
    (WRONG, dict(attempts=2, repeats=1, searches=1, in_order=0)),
    (CUT, dict(correct=0, strict=0, format=0, reflection=1)),
    ("", dict(correct=0, strict=0, format=0, answer=None, attempts=0, searches=0)),
])  # fmt: skip
def test_what_one_completion_shows(completion, expected):
    [measured] = measure([PROBLEMS[0]], [completion], attempts=find_attempts)
    assert {name: measured[name] for name in expected} == expected


@pytest.mark.parametrize("completion, expected", [
    ("<think> 9+5=14:13 no wait 9-5=4:13 no but 9+4=13:13 ok </think> <answer> 9+4", 2),
    ("<think>Wait, wait. However, I made a mistake.</think><answer>4</answer>", 4),
    ("<think> 9+5=14:13 ok </think> <answer> wait </answer>", 0),
    ("9+5=14:13 no wait 9-5=4 <answer> 9-5 </answer> wait", 1),
    ("<think> no wait, cut off here: but", 2),
    ("<think> waiter butter checkout </think>", 0),
    ("<think> 9+5=14:13不等9-5=4:13不但9+4=13:13对 </think>", 2),
    ("<think> 9+5=14:13 non attends 9-5=4:13 non mais 等wait </think>", 4),
    ("", 0),
])  # fmt: skip
def test_reflective_words_are_counted_in_the_thinking_only(completion, expected):
    assert measure(PROBLEMS[:1], [completion])[0]["reflection"] == expected


@pytest.mark.parametrize("completion, expected", [
    ("<think> 9+5=14:13 no wait 9-5=4:13 no </think>", False),
    ("<think> 9+5=14:13不等9+4=13:13对 </think>", False),
    ("<think> 9+5=14:13不wait 9+4=13:13 ok </think>", True),
    ("<think> 9+5=14:13 no attends 9+4=13:13 oui </think>", True),
    ("<think> 9+5=14:13 non attends 9+4=13:13 oui </think> <answer> ok 等 </answer>", False),
    ("<think> 我们设 x = 3, 所以 y = 4 </think>", False),
    ("<think> 我们设 x = 3, therefore y = 4 </think>", True),
    ("<think> 9+5=14:13 </think>", False),
])  # fmt: skip
def test_mixing_is_words_of_more_than_one_language_in_the_thinking(completion, expected):
    assert measure(PROBLEMS[:1], [completion])[0]["mixed"] is expected


@pytest.mark.parametrize(("gold", "answers", "votes"), [
    ("18", ["18", r"\$18", "18.00 dollars", "18.00", "20"], [0, 0, 0, 0, 1]),
    ("1/2", ["1/2", r"\frac12", "0.5", "50%", "the answer is 1/2", "2"], [0, 0, 0, 0, 0, 1]),
    ("x+1", ["x+1", "1 + x", "x-1", "x + 1"], [0, 0, 1, 0]),
])  # fmt: skip
def test_equal_answers_vote_together_however_they_are_spelled(gold, answers, votes):
    one = Problem("p", "own", 1, "en", "How many dollars does she make?", gold)
    rows = measure([one] * len(answers), [f"<answer>{answer}</answer>" for answer in answers])
    _number_answers(rows, one)
    assert [row["answer"] for row in rows] == votes


def test_only_search_problems_have_attempts_and_only_where_they_are_looked_for():
    problem = Problem("s", "sums", 1, "en", "compute 17+5", "22")
    completion = "<think> 17+5=22 </think> <answer> 22 </answer>"
    [sum_] = measure([problem], [completion], attempts=find_attempts)
    [puzzle] = measure(PROBLEMS[:1], [RIGHT])
    for row in (sum_, puzzle):
        assert row["correct"] and (row["attempts"], row["searches"], row["in_order"]) == (0, False, False)


def half_for_trying(completion, problem):
    """A check of one's own: graded, and without a verdict on an empty answer."""
    return 0.5 if "<answer>" in completion else None


def test_a_check_of_one_s_own_decides_what_is_right():
    """Every number that says pass@1 must be the task's own, not the built-in grader's."""
    rows = measure(PROBLEMS[:3], [RIGHT, WRONG, CUT], check=half_for_trying)
    assert [row["correct"] for row in rows] == [row["strict"] for row in rows] == [0.5, 0.5, False]
    evaluation = run(PROBLEMS, scripts=[WRONG], check=half_for_trying)
    assert evaluation.summary()["pass_at_1"] == evaluation.summary()["pass_at_1_strict"] == 0.5
    assert evaluation.summary()["pass_at_4"] == 0  # none was wholly right
    program = replace(PROBLEMS[0], tests=[{"call": "f(1)", "result": "1"}])  # needs no sandbox then
    assert measure([program], ["anything"], check=lambda completion, problem: True)[0]["correct"] is True


def test_a_task_is_evaluated_by_its_own_check_template_and_attempts_on_its_test_problems():
    task = Task("mine", PROBLEMS[:1], PROBLEMS[3:], {}, half_for_trying, "r1_zero", find_attempts)
    sampler = ScriptedSampler([RIGHT])
    evaluation = evaluate(sampler, TOKENIZER, task, k=2, max_tokens=100)
    asked = [TOKENIZER.encode(apply_template("r1_zero", p.prompt, TOKENIZER)) for p in task.test]
    assert sampler.prompts == asked and evaluation.ids == [problem.id for problem in task.test]
    assert (evaluation["correct"] == 0.5).all() and (evaluation["attempts"] == 2).all()


def tried(*signs) -> dict:
    found = [Attempt(0, tuple((sign, 1) for sign in one), (), None, None) for one in signs]
    [row] = measure(PROBLEMS[:1], [""], attempts=lambda problem, text: found)
    return row


ALL = list(itertools.product("+-", repeat=3))  # binary counting, plus first


@given(st.integers(0, 7), st.integers(0, 7))
def test_any_stretch_of_the_count_is_in_order(start, end):
    assert tried(*ALL[start:end])["in_order"] is (end - start > 1)


@given(st.lists(st.sampled_from(ALL), min_size=2, max_size=6))
def test_in_order_means_each_is_followed_by_its_successor(attempts):
    expected = all(ALL.index(b) == ALL.index(a) + 1 for a, b in zip(attempts, attempts[1:]))
    assert tried(*attempts)["in_order"] is expected
    assert tried(*attempts)["repeats"] == len(attempts) - len({*attempts})


def test_attempts_of_different_length_or_without_an_order_are_not_in_order():
    assert not tried("+", "+-")["in_order"]
    reach = replace(PROBLEMS[0], family="countdown")
    [row] = measure([reach], ["9+5=14+1=15 no 9+5=14-1=13 ok"], attempts=find_attempts)
    assert (row["attempts"], row["searches"], row["in_order"]) == (2, False, False)


def test_tokens_truncation_and_text_come_from_the_rollouts():
    evaluation = run(PROBLEMS[:1], scripts=[CUT])
    assert evaluation["truncated"].all()
    assert (evaluation["tokens"] == len(TOKENIZER.encode(CUT))).all()
    ended = run(PROBLEMS[:1], scripts=[RIGHT])
    assert not ended["truncated"].any()
    assert (ended["tokens"] == len(TOKENIZER.encode(RIGHT)) + 1).all()  # the end token counts
    assert TOKENIZER.eos_token not in ended.completions[0][0]


@pytest.mark.parametrize("processes", [2, 3, 11])  # 11: more than there are problems
def test_the_number_of_processes_changes_nothing(processes):
    parts = [run(PROBLEMS, shard=(rank, processes)) for rank in range(processes)]
    whole, merged = run(PROBLEMS), merge(parts[::-1])
    assert same(merged, whole) and not same(run(PROBLEMS, seed=1), whole)
    others = SimpleNamespace(rank=1, size=processes, gather=lambda own: [parts[0], own, *parts[2:]])
    assert same(run(PROBLEMS, world=others), whole)
    assert all(merged[name].dtype == whole[name].dtype for name in whole.measures)


def test_the_summary_is_the_block_of_the_contract():
    block = run(PROBLEMS, k=16).summary()
    accuracies = {"pass_at_1", "pass_at_1_strict", "cons_at_16", "pass_at_16"}
    texts = {"mean_tokens", "reflection_per_answer", "format", "mixing", "repeats", "in_order"}
    assert set(block) == (
        accuracies | {f"{name}_ci95" for name in accuracies} | texts | {"truncated", "by_level"}
    )
    for name in accuracies:
        low, high = block[f"{name}_ci95"]
        assert 0 <= low <= block[name] <= high <= 1
    assert set(block["by_level"]) == {"1", "2", "3"}
    assert set(block["by_level"]["1"]) == {"n", "pass_at_1", "ci95"}
    assert block["by_level"]["1"]["n"] == 3


def test_the_summary_of_known_completions():
    block = run(PROBLEMS, scripts=[RIGHT]).summary()
    assert block["pass_at_1"] == block["pass_at_1_strict"] == block["cons_at_4"] == 1
    assert block["in_order"] == 1 and block["repeats"] == 0 and block["truncated"] == 0
    wrong = run(PROBLEMS, scripts=[WRONG]).summary()
    assert wrong["pass_at_4"] == 0 and wrong["mixing"] == 1 and wrong["repeats"] == 0.5
    unclosed = run(PROBLEMS, scripts=[UNCLOSED]).summary()
    assert (unclosed["pass_at_1"], unclosed["pass_at_1_strict"], unclosed["format"]) == (1, 0, 0)
    assert unclosed["in_order"] is None  # nobody made a second attempt


def test_the_headline_is_the_mean_over_levels():
    easy = run([puzzle(number, 1) for number in range(6)], scripts=[RIGHT])
    hard = run([puzzle(6, 2)], scripts=[WRONG])
    together = merge([easy, Evaluation(**{**vars(hard), "index": np.array([6])})])
    assert together.summary()["pass_at_1"] == 0.5
    assert together.summary()["by_level"]["2"]["pass_at_1"] == 0


def test_selecting_problems_keeps_their_samples_in_the_order_asked():
    whole = run(PROBLEMS)
    part = whole.rows([5, 2])
    assert part.ids == ["p5", "p2"] and part.levels.tolist() == [3, 3]
    assert part.completions == [whole.completions[5], whole.completions[2]]
    assert np.array_equal(part["answer"], whole["answer"][[5, 2]])


def test_saving_and_loading_keeps_everything(tmp_path):
    evaluation = run(PROBLEMS)
    evaluation.save(tmp_path / "eval.npz")
    assert same(Evaluation.load(tmp_path / "eval.npz"), evaluation)
    assert [path.name for path in tmp_path.iterdir()] == ["eval.npz"]


@pytest.mark.parametrize(("problems", "k"), [([], 4), (PROBLEMS, 0)])
def test_nothing_to_evaluate_is_refused(problems, k):
    with pytest.raises(InputError):
        run(problems, k=k)
