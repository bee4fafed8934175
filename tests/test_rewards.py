"""Rewards: reading of completions, exploits, deadline, format, combination, control arms, TRL."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1lab.errors import InputError
from r1lab.rewards import algebra, guard
from r1lab.rewards import RewardSet, accuracy, correct, format, language, parse, random, validate
from r1lab.task import CHECKERS, Problem
from r1lab.world import sample_problem
from r1lab.world.small_world import SmallWorld
from tests.small_run import reward_set


def tagged(answer: str) -> str:
    return f"<think> so </think> <answer> {answer} </answer>"


def score(answer: str, gold: str, question: str = "What is it worth?") -> float | None:
    return accuracy(prompts=[question], completions=[tagged(answer)], solution=[gold])[0]


# ----------------------------------------------------------------------------------- strict reading


@pytest.mark.parametrize(("completion", "answer"), [
    ("<think> 2+3 </think> <answer> 5 </answer>", "5"), ("<answer>5</answer>\n", "5"),
    ("no tags at all, 5", None), ("<think> it is 5", None), ("<answer></answer>", None),
    ("<answer> </answer>", None), ("<answer>5</answer><answer>5</answer>", None),
    ("<answer>5</answer></answer>", None), ("<answer>5<answer>6</answer>", None),
    ("<think><answer>4</answer></think><answer>5</answer>", None), ("<answer>5", None),
    ("5</answer>", None), ("</answer>5<answer>", None), ("<answer>5</answer> or 6", None),
    (r"so we get $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
    (r"<think> \boxed{3} </think> hence \boxed{5}", "5"), (r"<think> \boxed{5}", None),
    (r"\boxed{5} and \boxed{6}", None), (r"\boxed{5} or 6", None),
    (r"The answer is not \boxed{5}.", None), (r"Maybe \boxed{5}", None), (r"\boxed{}", None),
    (r"<answer>6</answer> \boxed{5}", None),
])  # fmt: skip
def test_the_strict_reading_takes_one_final_answer(completion, answer):
    assert parse(completion).answer == answer


@pytest.mark.parametrize(("completion", "answer"), [
    ("<answer>4</answer> wait <answer> 5 </answer> trailing", "5"),
    ("<think> hm </think> <answer> 9+5-1", "9+5-1"),
    (r"so \boxed{4}, no: \boxed{\frac{1}{2}}", r"\frac{1}{2}"), (r"\boxed{7", "7"),
    ("<think> 9+5=14 </think> 9+5-1", "9+5-1"),
    ("<think> 9+5=14 </think> 9+5-1 </think>", "9+5-1"), ("First 3.\nThe answer is 5.", "5"),
    ("The total is 1,250 dollars", "1,250"), ("We find $x+1$.", "x+1"),
    ("Therefore it is 2y + 3", "2y + 3"), ("The answer is B.", "B"), ("", ""),
])  # fmt: skip
def test_the_lenient_reading_finds_an_answer_without_its_tags(completion, answer):
    assert parse(completion).lenient_answer == answer


PAGE = (Path(__file__).parents[1] / "notebooks" / "reading.md").read_text(encoding="utf-8")
LINES = [line for line in PAGE.splitlines() if "| `" in line]
ROWS = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in LINES]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_row_of_the_page_is_read_as_it_says(row):
    _, completion, gold, question, *verdicts = row
    text = completion.replace("⏎", "\n")
    found = [correct(text, gold, question=question, lenient=lenient) for lenient in (False, True)]
    assert ["yes" if verdict else "no" for verdict in found] == verdicts


COUNTDOWN = {"numbers": [8, 2, 3], "target": 12, "operators": "+-*/"}


@pytest.mark.parametrize("answer", [
    "8÷2×3", "8 / 2 x 3", r"\frac{8}{2}\times 3", r"8 \div 2 \times 3", "$8/2*3$", "12 = 8/2*3", "8/2*3.",
    "`8/2*3`", r"\boxed{8/2*3}", "[8/2]*3", "8/2*3 = 12", "**8/2*3**", "8⋅3/2", r"\(8/2 \cdot 3\)",
])  # fmt: skip
def test_countdown_is_read_in_any_spelling_by_the_lenient_reading_alone(answer):
    assert correct(tagged(answer), "x", "countdown", COUNTDOWN, lenient=True) is True
    assert not correct(tagged(f"{answer}+1"), "x", "countdown", COUNTDOWN, lenient=True)


@given(st.text(max_size=200))
def test_no_text_breaks_a_reading(text):
    parsed = parse(text)
    assert parsed.answer is None or parsed.answer.strip()
    assert isinstance(parsed.lenient_answer, str)
    assert accuracy([text], [text], solution=["\\boxed{"])[0] in (0.0, 1.0, None)


@given(st.integers(-10**9, 10**9), st.integers(-10**9, 10**9))
def test_of_two_integers_only_the_gold_one_is_right(gold, other):
    assert score(str(gold), str(gold)) == 1.0
    assert score(f"{gold:,}", str(gold)) == 1.0
    assert score(str(other), str(gold)) == float(other == gold)


# ----------------------------------------------------------------------------------------- exploits


@pytest.mark.parametrize(("gold", "answer"), [
    ("73", "74"), ("73", "**74**"), (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    ("n=1,2,3", "n=2,3,4"), ("1,2,3", "2,3,4"), ("y=2x+3", "2x+3"), ("3R^2", "3r^2"),
    (r"\cos 58^\circ", r"\cos 58"), ("12", "17-5"), ("5", "10/2"), ("1024", "2^{10}"),
    ("52", "5²"), ("5", "٥"), ("5", "⑤"), ("5", "5️⃣"), ("23", r"\boxed{2}\boxed{3}"),
    ("23", "$2$ $3$"), ("5", "eval('5')"), ("5", "__import__('os')"), ("5", "5" * 100_000),
    ("5", "5 " * 50_000), ("5", "{" * 900), ("x+1", "(" * 400 + "x+1" + ")" * 399),
    (r"\sqrt{2}", "1.41421356"), ("1/3", "0.333333"), ("5", r"\text{5 or 6}"), ("5", r"5 \vee 6"),
    ("5", "5\n6"), ("5", "<answer>5"), ("12", "12 dollars"), ("5", "5%"),
    (r"\sqrt{3}", r"\sqrt{3}\phantom{x} + 0 \cdot x"), ("0.2", "0.2%"), ("7", "7,"  "8"),
])  # fmt: skip
def test_known_exploits_earn_nothing(gold, answer):
    assert score(answer, gold) == 0.0


@pytest.mark.parametrize(("gold", "answer"), [
    ("73", "**73**"), (r"\frac{1}{2004!}", "1/2004!"), ("n=1,2,3", "n = 1, 2, 3"), ("5", "５"),
    ("2x+3", "3 + x + x"), (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt 2}"), ("25%", r"25\%"),
    ("0.25", "25%"), (r"\sin 30^\circ \cdot x", r"x \cos 60°"), ("1000000", "10^6"),
    ("y = 2x - 1", "2y - 4x + 2 = 0"), ("e^{2x}", r"\exp(2x)"), ("12", "12."),
    ("6+9i", r"9\cdot i + 6"), (r"\frac{1}{5} + \frac{3}{5}i", r"\frac{1+3i}{5}"),
    ("7/2", r"{7 \over 2}"), ("-3/2", r"\frac{3}{-2}"), ("6, -2", r"\boxed{-2}, \boxed{6}"),
    (r"440\text{ cm}^2", "440 sq. cm"), (r"440\text{ cm}^2", r"440\text{ cm²}"),
    (r"\sqrt{1600}x", r"\sqrt{1,600}x"), (r"12\text{ g}", "12 grams"), ("2112_6", "2112₆"),
    ("18x^8", "18*x**8"), ("18x^{10}", "18x¹⁰"), (r"[0,\infty)", "[0, oo)"),
    ("(9,11)", r"\langle 9, 11 \rangle"), (r"\text{parabola}", "It is a parabola."),
    ("5", "Thus, the value of $x$ is $5$."), (r"\cos 58^\circ", r"\sin 32^\circ"),
    (r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}",
     r"\left(\begin{matrix}2\\[2pt]1\end{matrix}\right)"),
    ("x = 1, y = 2", "y = 2, x = 1"), ("x=1 or x=3", "x=3 or x=1"),
])  # fmt: skip
def test_right_answers_beside_the_exploits_are_accepted(gold, answer):
    assert score(answer, gold) == 1.0


@pytest.mark.parametrize("gold", ["", "  ", r"\heartsuit^{", "$$", "???"])
@pytest.mark.parametrize("answer", ["0", "0 = 0", "x", "1"])
def test_an_unreadable_gold_answer_is_never_matched(gold, answer):
    assert score(answer, gold) in (None, 0.0)


def test_what_cannot_be_read_is_not_scored():
    assert score("5", r"x \heartsuit y") is None or score("5", r"x \heartsuit y") == 0.0
    assert accuracy(prompts=["q"], completions=[tagged("5")], solution=[None]) == [None]


def test_a_unit_must_be_the_golds_or_the_questions():
    asked = "How many litres of milk do the cows give?"
    assert score("12 litres", "12", asked) == score("12 litres of milk", "12", asked) == 1.0
    assert score("12 gallons", "12", asked) == score("12 thousand litres", "12", asked) == 0.0
    assert score("5 feet", r"5\text{ ft}") == score("5", r"5\text{ ft}") == 1.0
    assert score("5 inches", r"5\text{ ft}") == 0.0
    row = {"prompts": [""], "completions": [tagged("3 gallons")], "solution": ["3"]}
    assert accuracy(**row) == [1.0]  # nothing is known of the question


# ----------------------------------------------------------------------------- deadline and threads


BOMBS = ["9^{9^{9^{9}}} x", r"\sqrt{x}^{9999999999}!", "x + 99999999!"]


@pytest.fixture
def short_deadline(monkeypatch):
    algebra.same_value.cache_clear()
    monkeypatch.setattr(algebra, "SECONDS", 0.5)
    monkeypatch.setattr(algebra, "_worker", algebra.Worker())  # a new process, with the new limit


@pytest.mark.parametrize("bomb", BOMBS)
def test_the_deadline_holds_and_the_next_answer_is_judged(short_deadline, bomb):
    assert score(bomb, "x + 1") == 0.0
    algebra.same_value.cache_clear()
    assert score("1 + x", "x + 1") == 1.0


def test_it_works_off_the_main_thread():
    with ThreadPoolExecutor(3) as threads:
        assert [*threads.map(lambda i: score(f"{i} + x", f"x + {i}"), range(12))] == [1.0] * 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_makes_its_own_worker():
    assert score("2 + x", "x + 2") == 1.0
    algebra.same_value.cache_clear()
    child = os.fork()
    if child == 0:
        os._exit(0 if score("2 + x", "x + 2") == 1.0 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_worker_needs_no_main_guard_and_ends_with_its_parent():
    script = (
        "import os\n"
        "import r1lab.rewards.algebra\n"
        "from r1lab.rewards import accuracy\n"
        "print(accuracy(['q'], ['<answer>1 + x</answer>'], ['x + 1']))\n"
        "print(r1lab.rewards.algebra._worker.process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    # The worker holds standard output open: `communicate` returns only once it is gone as well.
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    lines = process.communicate(timeout=120)[0].splitlines()
    assert lines[0] == "[1.0]" and lines[1].isdigit()


def test_a_worker_that_cannot_start_is_no_verdict(monkeypatch):
    monkeypatch.setattr(algebra, "COMMAND", (sys.executable, "-c", "import math_verify_is_missing"))
    monkeypatch.setattr(algebra, "_worker", algebra.Worker())
    with pytest.raises(RuntimeError, match="needs math-verify"):
        score("3 + x", "x + 3")


# -------------------------------------------------------------------------------------- small world


def test_a_family_with_a_checker_decides_and_never_starts_math_verify(monkeypatch):
    calls = []

    def check(answer, meta):
        calls.append((answer, meta))
        return answer == "9+5-1"

    monkeypatch.setitem(CHECKERS, "signs", check)
    monkeypatch.setattr(guard, "same_value", lambda *_: pytest.fail("math-verify was asked"))
    columns = {"family": ["signs"] * 3, "meta": [{"target": 13}] * 3}
    completions = [tagged("9+5-1"), tagged("13"), "9+5-1"]
    assert accuracy(["p"] * 3, completions, ["9+5-1"] * 3, **columns) == [1.0, 0.0, 0.0]
    assert calls == [(answer, {"target": 13}) for answer in ("9+5-1", "13")]
    assert correct(tagged("7"), "7", family="sums", meta={}) is True


@pytest.mark.parametrize("family", ["signs", "countdown", "sums", "programs", "logic"])
def test_gold_answers_of_the_small_world_are_accepted(family):
    rng = Random(0)
    problems = [sample_problem(rng, family, 1, "en", for_test=True) for _ in range(20)]
    validate(reward_set("true"), problems)


# ------------------------------------------------------------------------------------------- format


@pytest.mark.parametrize(("completion", "good"), [
    ("<think> a </think> <answer> b </answer>", True),
    ("<think>a</think><answer>b</answer>", True),
    ("\n<think>a\nb</think>\n\n<answer>c\nd</answer>\n", True),
    ("<think></think><answer>b</answer>", True), ("<think>a</think><answer> </answer>", False),
    ("<answer>b</answer><think>a</think>", False),
    ("<think>a</think><answer>b</answer> more", False),
    ("so <think>a</think><answer>b</answer>", False),
    ("<think>a</think> so <answer>b</answer>", False),
    ("<think>a<answer>b</answer></think>", False),
    ("<think>a</think><think>a</think><answer>b</answer>", False),
    ("<think>a</think><answer>b</answer><answer>b</answer>", False),
    ("<think>a</think><answer>b", False), ("<Think>a</Think><answer>b</answer>", False),
    ("", False),
])  # fmt: skip
def test_format(completion, good):
    assert format(["p"], [completion]) == [float(good)]
    assert format(["p"], [[{"role": "assistant", "content": completion}]]) == [float(good)]


# -------------------------------------------------------------------------------------- combination


def scored(*scores):
    return lambda prompts, completions, **columns: list(scores)


def test_parts_are_weighted_and_kept():
    rewards = RewardSet({"a": (scored(1.0, None, None), 1.0), "b": (scored(0.5, 2, None), 0.5)})
    totals, parts = rewards(prompts=["p"] * 3, completions=["c"] * 3)
    assert totals == [1.25, 1.0, None]
    assert parts == {"a": [1.0, None, None], "b": [0.5, 2.0, None]}


def test_a_part_of_weight_zero_is_only_logged():
    rewards = RewardSet({"a": (scored(1.0), 0.0), "b": (scored(None), 1.0)})
    assert rewards(prompts=["p"], completions=["c"]) == ([None], {"a": [1.0], "b": [None]})


def fails(prompts, completions, **columns):
    raise KeyError("solution")


def refuses(prompts, completions, **columns):
    raise InputError("no program can be run; leave them out.")


@pytest.mark.parametrize(("function", "message"), [
    (fails, "'bad' failed: KeyError"),
    (refuses, r"^the reward 'bad' failed: no program can be run; leave them out\.$"),
    (scored(), "'bad' returned 0 scores for 1 completions"),
    (scored(1.0, 1.0), "'bad' returned 2 scores"),
    (scored(float("nan")), "'bad' returned a score that is not a finite number"),
    (scored("high"), "'bad' failed: ValueError"),
    (lambda prompts, completions, **columns: None, "'bad' failed: TypeError"),
])  # fmt: skip
def test_a_broken_reward_is_named(function, message):
    rewards = RewardSet({"good": (format, 1.0), "bad": (function, 1.0)})
    with pytest.raises(InputError, match=message):
        rewards(prompts=["p"], completions=["c"])


def test_a_reward_may_read_what_trl_hands_over():
    def late(completions, completion_ids, trainer_state, log_extra, log_metric, **columns):
        log_extra("length", [len(ids) for ids in completion_ids])
        log_metric("late", 1.0)
        assert trainer_state.max_steps is None
        return [float(trainer_state.global_step > 3)] * len(completions)

    rewards = RewardSet({"late": late})
    assert rewards(["p"], ["c"])[0] == [0.0]
    assert rewards(["p"] * 2, ["c"] * 2, step=[4, 4], completion_ids=[[1], [2]])[0] == [1.0, 1.0]


def test_a_reward_that_is_awaited_is_refused_before_anything_is_graded():
    async def judged(prompts, completions, **columns):
        return [1.0]

    with pytest.raises(InputError, match="'judged' is an `async def`; make it a plain function"):
        RewardSet({"format": format, "judged": judged})


def problem(solution: str, name: str = "p1") -> Problem:
    return Problem(name, family="math", level=1, lang="en", prompt="How much?", solution=solution)


def test_validate_names_the_problem_whose_gold_answer_is_not_accepted():
    problems = [problem("5"), problem(r"\frac{1}{2}", "p2"), problem("", "unscored")]
    validate(reward_set("true"), problems)
    validate(reward_set("random"), problems)
    with pytest.raises(InputError, match="'accuracy' .* problem p3"):
        validate(reward_set("true"), [*problems, problem("</answer>", "p3")])


def test_the_check_is_asked_about_gold_answers_and_blind_rewards_are_not():
    def short(completions, trainer_state, **columns):
        return [-1.0] * len(completions)

    def graded(completions, solution, **columns):
        return short(completions, None)

    with pytest.raises(InputError, match="'graded' does not accept .* the attribute `blind`"):
        validate(RewardSet({"graded": graded}), [problem("5")])
    graded.blind = True
    validate(RewardSet({"graded": graded}), [problem("5")])
    validate(RewardSet({"short": short}), [problem("5")], check=lambda text, one: one.solution in text)
    with pytest.raises(InputError, match="the check does not accept the gold answer of problem p1"):
        validate(RewardSet({"short": short}), [problem("5")], check=lambda text, one: None)


def test_the_coin_is_fair_and_depends_on_nothing_but_its_key():
    prompts = [f"p{i // 8}" for i in range(4000)]
    completions = [f"c{i % 3}" for i in range(4000)]
    one, two = ([seed] * len(prompts) for seed in (1, 2))
    coin = random(prompts, completions, seed=one)
    assert 0.45 < sum(coin) / 4000 < 0.55
    assert random(prompts, completions, seed=one) == coin
    assert random(prompts, completions, seed=two) != coin
    assert random(prompts[8:16], completions[8:16], seed=[1] * 8) == coin[8:16]  # of another process
    assert 10 < sum(random(["p"] * 40, ["same"] * 40)) < 30
    assert random(prompts, completions, seed=one, rollout=[7] * 4000) != coin


def test_the_arms():
    good, bad = "<think> </think><answer> 5 </answer>", "<think> </think><answer> 6 </answer>"
    rows = {"prompts": ["p"] * 2, "completions": [good, bad], "solution": ["5"] * 2}
    assert reward_set("true", 1.0, 0.5)(**rows)[0] == [1.5, 0.5]
    totals, parts = reward_set("format")(**rows)
    assert totals == [1.0, 1.0] and parts["accuracy"] == [1.0, 0.0]
    totals, parts = reward_set("random")(**rows, seed=[3] * 2)
    assert totals == parts["random"] == random(["p"] * 2, [good, bad], seed=[3] * 2)
    with pytest.raises(InputError, match="no arm 'ture'"):
        SmallWorld(arm="ture").task()


# ---------------------------------------------------------------------------------------------- TRL


def test_trls_own_rewards_drop_in():
    rewards = pytest.importorskip("trl.rewards", reason="TRL comes with the test extra")
    both = RewardSet({"think": (rewards.think_format_reward, 1.0), "accuracy": (accuracy, 1.0)})
    completions = ["<think>a</think><answer>5</answer>", "<answer>5</answer>"]
    totals, parts = both(prompts=["p"] * 2, completions=completions, solution=["5"] * 2)
    assert parts == {"think": [1.0, 0.0], "accuracy": [1.0, 1.0]} and totals == [2.0, 1.0]


def test_our_rewards_take_trls_messages():
    completions = [[{"role": "assistant", "content": "<think> ok </think> <answer> 5 </answer>"}]]
    prompts = [[{"role": "user", "content": "How many?"}]]
    extra = {"solution": ["5"], "lang": ["en"], "completion_ids": [[1, 2]], "trainer_state": None}
    for reward in (accuracy, format, language, lambda **c: [1.0] if random(**c) else []):
        assert reward(prompts=prompts, completions=completions, **extra) == [1.0]
