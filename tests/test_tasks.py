"""The small world: problems are solvable, checked by their rules, and the corpus keeps its word."""

import itertools
import json
import random
from collections import Counter
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1lab.errors import InputError
from r1lab.evaluation.measure import REFLECTIVE_WORDS
from r1lab.task import checker, load_problems, save_problems
from r1lab.world import FAMILIES, held_out, sample_problem, training_problems
from r1lab.world.corpus import CORPUS, EARLY_CORPUS, describe, documents
from r1lab.world.puzzles import COUNTDOWN, SIGNS, parse_attempts, signs_candidates, write_attempt
from r1lab.world.side import GYM, logic_values
from r1lab.world.words import REFLECTIVE

MIXTURE = {f"signs/{level}": 1.0 for level in range(1, 6)}


@given(seed=st.integers(0, 10**6), level=st.integers(1, 5), lang=st.sampled_from(["en", "zh"]))
def test_a_signs_puzzle_has_exactly_one_solution(seed, level, lang):
    problem = sample_problem(random.Random(seed), "signs", level, lang)
    numbers = problem.meta["numbers"]
    answers = [
        str(numbers[0]) + "".join(f"{op}{number}" for op, number in moves)
        for moves in signs_candidates(numbers)
    ]
    right = [a for a in answers if SIGNS.check(a, problem.meta)]
    assert right == [problem.solution]
    assert len(answers) == 2**level


@given(seed=st.integers(0, 10**6), level=st.integers(1, 2))
def test_the_solution_of_a_countdown_puzzle_passes_its_check(seed, level):
    problem = sample_problem(random.Random(seed), "countdown", level, "en")
    assert COUNTDOWN.check(problem.solution, problem.meta)


WRONG_SIGNS = "13 9+4 5+9-1 9+5-1-0 9+5-1=12 9+5-1=13=13 9+5=13-1 9+5- +9+5-1 9+5+-1".split()
WRONG_COUNTDOWN = "24 8*3 8*3*1=25 8*3=24 8*3*1*1 (8*3 8**3 8*3/1 __import__('os')".split()


@pytest.mark.parametrize(("family", "numbers", "right", "wrong"), [
    (SIGNS, [9, 5, 1], ["9+5-1", "9+5-1=13"], [*WRONG_SIGNS, "", "9 5 1"]),
    (COUNTDOWN, [3, 8, 1], ["(8*3)*1", "8*3*1=24"], [*WRONG_COUNTDOWN, ""]),
])  # fmt: skip
def test_what_breaks_the_rules_is_refused(family, numbers, right, wrong):
    meta = {"numbers": numbers, "target": 13 if family is SIGNS else 24}
    assert [answer for answer in (*right, *wrong) if family.check(answer, meta)] == right


def test_families_without_a_checker_are_left_to_the_comparison_of_values():
    assert checker("sums") is None and checker("signs") == SIGNS.check


@given(numbers=st.lists(st.integers(1, 9), min_size=2, max_size=6), data=st.data())
def test_an_attempt_is_read_back_as_it_was_written(numbers, data):
    moves = data.draw(st.sampled_from(signs_candidates(numbers)))
    target = data.draw(st.integers(-50, 50))
    text, hit = write_attempt(numbers[0], moves, target)
    # A Latin word swallows nothing of the Han character after it.
    for word, verdict in (("ok", True), ("不", False), ("maybe", None)):
        (attempt,) = parse_attempts(f"<think> {text} {word}等")
        assert attempt.verdict is verdict and attempt.moves == moves and attempt.stated_target == target
        assert all(attempt.steps_right()) and (attempt.totals[-1] == target) == hit


def test_a_wrong_step_is_seen():
    (attempt,) = parse_attempts("9+5=15-1=14:13 no")
    assert attempt.steps_right() == [False, True]


@pytest.mark.parametrize("family", ["signs", "countdown", "sums", *(family.name for family in GYM)])
def test_training_and_test_problems_are_disjoint(family):
    test_set = load_problems(f"data/test_{family}.jsonl")
    ids, levels = ({getattr(one, name) for one in test_set} for name in ("id", "level"))
    assert len(ids) == len(test_set) and all(held_out(problem) for problem in test_set)
    counts = Counter(problem.level for problem in test_set)
    assert levels == {*FAMILIES[family].levels} and min(counts.values()) >= 60
    mixture = {f"{family}/{level}": 1.0 for level in levels}
    drawn = training_problems(0, 0, 400, mixture, {"en": 0.5, "zh": 0.5})
    assert not ids & {one.id for one in drawn} and not any(map(held_out, drawn))


def test_the_corpus_holds_no_held_out_problem():
    names = ("signs", "countdown", "programs", "logic", "french")
    questions = {p.prompt for name in names for p in load_problems(f"data/test_{name}.jsonl")}
    for prompt, _ in itertools.islice(documents(CORPUS, 5), 3000):
        assert not any(part.split(" Assistant")[0] in questions for part in prompt.split("User: "))


def test_questions_are_keyed_by_seed_and_step_alone():
    first = training_problems(3, 7, 16, MIXTURE, {"en": 1.0})
    assert first == training_problems(3, 7, 16, MIXTURE, {"en": 1.0})
    assert first != training_problems(3, 8, 16, MIXTURE, {"en": 1.0})


@pytest.mark.parametrize("name", ["signs", "signs/9", "sings/1", "signs/one"])
def test_a_mixture_names_families_and_their_levels(name):
    with pytest.raises(InputError, match=f"no problems '{name}'.*signs/1-5"):
        training_problems(0, 0, 1, {name: 1.0}, {"en": 1.0})


def test_in_the_corpus_steps_and_verdicts_are_right_and_no_attempt_repeats():
    seen = 0
    for prompt, completion in itertools.islice(documents(CORPUS, 1), 4000):
        question = prompt.rsplit("User: ", 1)[1]
        if not question.startswith(("make", "用")):
            continue
        attempts = parse_attempts(completion)
        seen += len(attempts)
        assert all(all(attempt.steps_right()) for attempt in attempts)
        assert all((attempt.totals[-1] == attempt.stated_target) == attempt.verdict for attempt in attempts)
        assert len({attempt.key for attempt in attempts}) == len(attempts)
    assert seen > 2000


def test_all_reflective_words_are_counted():
    for lang, words in REFLECTIVE.items():
        assert words <= REFLECTIVE_WORDS, lang


def test_every_distribution_of_the_corpus_adds_up():
    for name, value in vars(CORPUS).items():
        if isinstance(value, dict) and name != "foreign_thinking":  # one share per language
            assert sum(value.values()) == pytest.approx(1)
    table = str(describe({0: EARLY_CORPUS, 2_400: CORPUS}))
    assert "0 25%, 1 31%" in table and "0 38%, 1 43%" in table


def test_logic_is_read_from_left_to_right():
    assert logic_values("true or true and not true") == [True, True, False]


[GOOD] = training_problems(0, 0, 1, MIXTURE, {"en": 1.0})


def line(**change) -> bytes:
    return json.dumps(asdict(GOOD) | change).encode()


def test_problems_survive_a_file(tmp_path):
    """Also texts with line separators, and an editor's blank lines."""
    problems = training_problems(0, 0, 5, {"sums/2": 1.0}, {"zh": 1.0})
    problems.append(replace(GOOD, prompt="one\u2028two\x85three"))
    file = tmp_path / "p.jsonl"
    save_problems(problems, file)
    file.write_bytes(file.read_bytes().replace(b"\n", b"\n\n"))
    assert load_problems(file) == problems


@pytest.mark.parametrize(("second", "words"), [
    (b"{oops", "line 2"),
    (b'{"family": "signs"}', "line 2"),
    (b'{"question": "1+1", "answer": "2"}',
     "found the keys question, answer: .* missing.* with the keys id, family, level"),
    ('{"prompt": "d\u00e9j\u00e0"}'.encode("latin-1"), "line 2: .*'utf-8' codec.* in UTF-8"),
    (line(level="3"), "line 2: .*level is '3', of type str"),
    (line(prompt=5), "line 2: .*prompt is 5, of type int"),
    (line(meta=None), "line 2: .*meta is None"),
    (line(tests="f(1)"), "line 2: .*tests is 'f"),
])  # fmt: skip
def test_a_line_that_is_no_problem_is_named(tmp_path, second, words):
    (tmp_path / "p.jsonl").write_bytes(line() + b"\n" + second + b"\n")
    with pytest.raises(InputError, match=words):
        load_problems(tmp_path / "p.jsonl")


def test_a_file_without_problems_is_named(tmp_path):
    (tmp_path / "p.jsonl").touch()
    for path, words in ((tmp_path / "p.jsonl", "empty"), (tmp_path / "none.jsonl", "no such file")):
        with pytest.raises(InputError, match=words):
            load_problems(path)
