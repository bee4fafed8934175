"""Hub data sets become problems, from local files of the same schemas: no network."""

import base64
import json
import os
import pickle
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import datasets
import pytest

from r1lab.errors import InputError
from r1lab.rewards import RewardSet, accuracy, correct, validate
from r1lab.sandbox import Outcome, Sandbox
from r1lab.task import Task, checker, gold_answer
from r1lab.sources import hub
from r1lab.sources.hub import solve_countdown
from tests.hub_rows import ROWS, put


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "LOCAL", tmp_path / "hub")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "hub"


def load(name, home):
    put(name, home)
    return hub.load_source(name)


@pytest.mark.parametrize(("name", "solutions", "levels"), [
    ("gsm8k", ["1234", "35"], [1, 1]),
    ("math", [r"\frac{5}{6}", "4"], [2, 0]),
    ("math500", ["3"], [1]),
    ("aime24", ["004"], [1]),
    ("aime25", ["201"], [1]),
    ("openr1_math", ["42"], [1]),
    ("openthoughts", ["3"], [1]),
])  # fmt: skip
def test_questions_with_an_answer(home, name, solutions, levels):
    assert ROWS.keys() == hub.SETS.keys()
    problems = load(name, home)
    assert [problem.solution for problem in problems] == solutions
    assert [problem.level for problem in problems] == levels
    asked = [row.get("problem") or row["question"] for row in ROWS[name][1]]
    assert [problem.prompt for problem in problems] == asked[: len(problems)]
    assert len({problem.id for problem in problems}) == len(problems)
    for problem in problems:
        assert problem.family == name
        right = f"<think> so </think> <answer> {problem.solution} </answer>"
        assert correct(right, problem.solution, problem.family, problem.meta) is True


def test_options_are_shuffled_the_same_way_in_every_run(home):
    first, again = load("gpqa", home), load("gpqa", home)
    assert first == again
    assert {problem.solution for problem in first} <= set("ABCD")
    for problem, row in zip(first, ROWS["gpqa"][1], strict=True):
        options = dict(line.split(") ") for line in problem.prompt.splitlines()[-4:])
        assert options[problem.solution] == row["Correct Answer"]
        assert sorted(options) == list("ABCD") and len(set(options.values())) == 4


@pytest.mark.parametrize(("answer", "right"), [
    ("B", True), ("(B)", True), ("B) newton", True), (r"\text{B}", True), (r"\boxed{(B)}", True),
    ("**B.** newton", True), ("The answer is B", True), ("the correct option: (B)", True),
    ("So the answer is B because Carbon burns", True), ("A", False), ("newton", False),
    ("The answer is A or B", False), ("A) or B)", False), ("B) or C)", False),
    ("answer is A, answer is B", False), ("ABCD", False), ("", False), ("A Bee", False),
])  # fmt: skip
def test_a_choice_is_one_letter(answer, right):
    assert checker("gpqa")(answer, {"letter": "B"}) is right


def test_programs_bring_their_public_and_private_tests(home):
    text, method = load("livecodebench", home)  # the third row's contest is before the window
    assert text.tests == [
        {"input": "2\n1 2\n", "output": "3\n", "entry": "stdin"},
        {"input": "1\n7\n", "output": "7\n", "entry": "stdin"},
    ]
    assert [test["input"] for test in method.tests] == [[[1, 2], 2], [[], 5]]
    assert [test["output"] for test in method.tests] == [6, 0]
    assert method.tests[0]["entry"] == "Solution.total" and method.level == 2
    assert "class Solution" in method.prompt and "standard input" in text.prompt
    programs = ["input()\nprint(sum(map(int, input().split())))", method.prompt.split("\n\n")[-1]]
    programs[1] += "return sum(x) * n"
    with closing(Sandbox(1)) as sandbox:
        for graded in map(sandbox.submit, programs, [text.tests, method.tests]):
            assert graded.result() == Outcome("ok")


def test_a_pickle_is_searched_and_never_loaded(home):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(home / "attacked"),)

    attack = base64.b64encode(zlib.compress(pickle.dumps(Attack()))).decode()
    put("livecodebench", home, [{**ROWS["livecodebench"][1][0], "private_test_cases": attack}])
    with pytest.raises(InputError, match="row 1: cannot be read"):
        hub.load_source("livecodebench")
    assert not (home / "attacked").exists()


def test_countdown_rows_have_a_solution_that_their_checker_accepts(home):
    problems = load("countdown34", home)
    solved = [problem for problem in problems if gold_answer(problem)]
    assert [problem.meta["target"] for problem in solved] == [24, 94, 7]  # 1000 is out of reach
    for problem in solved:
        judged = problem.solution, problem.family, problem.meta
        assert correct(f"<answer> {gold_answer(problem)} </answer>", *judged, lenient=True) is True
        assert correct("<answer> 0 </answer>", *judged, lenient=True) is False
    validate(RewardSet({"accuracy": accuracy}), problems)
    assert problems[0].family == "countdown" and problems[1].level == 3
    meta = {"numbers": [3, 4], "target": 0, "operators": "+-*/"}
    assert checker("countdown")("3/(4-4)", meta) is False  # and no error
    assert checker("countdown")("8/4*3", {"numbers": [8, 4, 3], "target": 6}) is False


def test_the_solver_finds_what_only_a_fraction_reaches():
    meta = {"numbers": [3, 3, 8, 8], "target": 24, "operators": "+-*/"}
    assert checker("countdown")(solve_countdown(meta), meta)
    assert solve_countdown({"numbers": [3, 3], "target": 7}) == ""


def test_the_whole_of_countdown_is_read_in_seconds(home):
    started = time.monotonic()
    for n in range(20_000):
        hub.read_countdown({"nums": [n, 7, 11, 13], "target": n % 90})
    assert time.monotonic() - started < 2  # of 490,364 rows


def traces(source: str) -> list[dict]:
    return datasets.load_from_disk(str(hub.save_traces(source))).to_list()


def test_traces_are_stored_by_whichever_process_is_first(home, monkeypatch):
    put("openr1_math", home)
    load_rows, read = hub.load_rows, []

    def slowly(source):
        read.append(source)
        time.sleep(0.2)  # the others come meanwhile
        return load_rows(source)

    monkeypatch.setattr(hub, "load_rows", slowly)
    with ThreadPoolExecutor() as threads:
        found = set(threads.map(hub.save_traces, ["openr1_math"] * 3))
    assert len(found) == len(read) == 1


def test_traces_are_the_verified_ones_in_r1s_own_form(home):
    put("openr1_math", home)
    put("openthoughts", home)
    (verified,) = traces("openr1_math")
    assert verified["completion"] == "<think>\n6*7=42\n</think>\n\n\\boxed{42}"
    assert verified.keys() == {"id", "family", "level", "lang", "prompt", "completion"}
    (joined,) = traces("openthoughts")
    assert joined["completion"] == "<think>\n5 - 2 is 3.\n</think>\n\nThe answer is \\boxed{3}."
    for trace, solution in ((verified, "42"), (joined, "3")):
        assert correct(trace["completion"], solution) is True
    put("gsm8k", home)
    with pytest.raises(InputError, match="gsm8k has no traces"):
        traces("gsm8k")


@pytest.mark.parametrize(("rows", "words"), [
    ([{"query": "1+1?", "answer": "#### 2"}],
     "row 1: .*'question'.* columns are query, answer, and should be as in openai/gsm8k"),
    ([*ROWS["gsm8k"][1], {"question": "?", "answer": None}], "gsm8k, row 3: cannot be read"),
])  # fmt: skip
def test_a_row_that_cannot_be_read_is_named_with_the_columns(home, rows, words):
    put("gsm8k", home, rows)
    with pytest.raises(InputError, match=words):
        hub.load_source("gsm8k")


def test_no_hub_is_one_sentence_with_the_place_of_a_copy(home):
    with pytest.raises(InputError) as told:
        hub.load_source("math:train[:10]")
    assert str(home / "math" / "train.jsonl") in str(told.value)
    assert "hendrycks_math cannot be had" in str(told.value) and "\n" not in str(told.value)


def test_splits_slices_and_other_formats(home):
    put("gsm8k", home)
    assert len(hub.load_source("gsm8k:test[:1]")) == 1
    frame = datasets.Dataset.from_list(ROWS["gsm8k"][1])
    frame.to_parquet(home / "gsm8k" / "train.parquet")
    put("gsm8k", home)
    assert hub.load_source("gsm8k:train") == hub.load_source("gsm8k")
    (home / "gsm8k" / "broken.csv").write_bytes(b'"')
    with pytest.raises(InputError, match="broken.csv"):
        hub.load_source("gsm8k:broken")


@pytest.mark.parametrize("source", ["gsm9k", "gsm9k:test", "data", "data/none.jsonl"])
def test_unknown_sources_are_bad_input(home, source):
    with pytest.raises(InputError):
        hub.load_source(source)


def test_questions_come_once_an_epoch_and_the_same_after_a_resume(home):
    problems = load("gsm8k", home) * 3 + load("countdown34", home)[:3]
    asked = [replace(problem, prompt=f"{problem.prompt} {n}") for n, problem in enumerate(problems)]
    task = Task("own", asked, asked[:1], {})
    steps = [task.draw(1, step, 4) for step in range(6)]
    drawn = [problem.prompt for step in steps for problem in step]
    for epoch in range(3):
        assert sorted(drawn[epoch * 8 : epoch * 8 + 8]) == sorted(p.prompt for p in asked[1:])
    assert drawn[:8] != drawn[8:16]
    assert task.draw(1, 4, 4) == steps[4] and task.draw(2, 0, 4) != steps[0]
    with pytest.raises(InputError, match="drew 0 of 4 problems that are not in its test set"):
        replace(task, test=asked).draw(1, 0, 4)


def test_rows_in_the_columns_of_known_sets_are_read_as_those(home, tmp_path):
    """From a file, a list or a Dataset, without the Hub."""
    for name, solutions in (("gsm8k", {"1234", "35"}), ("math", {r"\frac{5}{6}", "4"}), ("countdown34", {""})):
        rows = ROWS[name][1]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        for task in (Task.from_jsonl(path, test=1), Task.from_dataset(datasets.Dataset.from_list(rows), test=1)):
            every = [*task.problems, *task.test]
            assert {problem.solution for problem in every} == solutions
            validate(RewardSet(task.rewards), every)
    assert {problem.family for problem in every} == {"countdown"} and every[0].level > 1


@pytest.mark.parametrize(("answer", "gold"), [
    ("so 3*4=12\n#### 1,234 ", "1234"), ("#### -5", "-5"), (r"It is $\boxed{4}$.", "4"), ("12", "12"),
    (r"\boxed{1} or \boxed{\frac12}", r"\frac12"), (7, "7"), (7.0, "7"), (None, ""), ("x = 3", "x = 3"),
    (r"\boxed{7}", "7"), ([1, 2], "[1, 2]"),
])  # fmt: skip
def test_the_gold_answer_is_found_in_a_worked_solution(answer, gold):
    [problem] = Task.from_dataset([{"question": "a?", "answer": answer}], test=[{"question": "b?", "answer": 1}]).problems
    assert problem.solution == gold


@pytest.mark.parametrize(("name", "change", "words"), [
    ("math", {"solution": "It is 4."}, r"math, row 1: cannot be read .*no .boxed answer"),
    ("countdown34", {"target": None, "nums": 3}, "countdown34, row 1: cannot be read"),
    ("gsm8k", {"question": " "}, "row 1: cannot be read .*empty"),
])  # fmt: skip
def test_a_malformed_row_of_a_known_set_is_named(name, change, words):
    rows = [{**row, **change} for row in ROWS[name][1]]
    with pytest.raises(InputError, match=words) as error:
        Task.from_dataset(rows, test=1)
    assert "\n" not in str(error.value)
