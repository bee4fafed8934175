"""Prompt sensitivity: examples before the question, other wordings, paired differences."""

import pytest

from r1lab.errors import InputError
from r1lab.world.puzzles import parse_attempts
from wordings import ALL, NAMES, USUAL, few_shot, prompt_sensitivity, wordings
from r1lab.world.bases import build_tokenizer
from r1lab.rewards import correct, parse
from r1lab.sampling import Rollouts, Sampler
from r1lab.sources.templates import apply_template
from r1lab.task import load_problems

TOKENIZER = build_tokenizer()
FAMILIES = ("signs", "countdown", "sums")
PROBLEMS = [problem for family in FAMILIES for problem in load_problems(f"data/test_{family}.jsonl")[::23]]
SIGNS = [problem for problem in PROBLEMS if problem.family == "signs"]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.prompt)
def test_other_wordings_ask_the_same_in_words_that_the_model_can_read(problem):
    others = wordings(problem)
    assert tuple(others) == NAMES[1:]
    assert len({problem.prompt, *others.values()}) == len(others) + 1  # each its own
    for text in others.values():
        assert TOKENIZER.unk_token_id not in TOKENIZER.encode(text), text
        digits = "".join(filter(str.isdigit, problem.prompt))
        assert sorted(filter(str.isdigit, text)) == sorted(digits)
        if problem.family == "sums":
            assert problem.prompt.removeprefix("compute ").removeprefix("求") in text


def test_a_question_without_other_wordings_is_refused():
    with pytest.raises(InputError, match="logic"):
        wordings(load_problems("data/test_logic.jsonl")[0])
    with pytest.raises(InputError, match="'fr'"):
        wordings(load_problems("data/test_french.jsonl")[0])


@pytest.mark.parametrize("problem", PROBLEMS[::3], ids=lambda problem: problem.prompt)
def test_examples_are_solved_and_are_other_questions_in_the_same_language(problem):
    text = few_shot(2)(problem)
    assert text.endswith(apply_template("small", problem.prompt))
    examples = text.split("User: ")[1:-1]
    assert len(examples) == 2 and few_shot(2)(problem) == text
    for example in examples:
        question, completion = example.strip().split(" Assistant: ")
        assert question != problem.prompt and parse(completion).well_formed
        assert question[0].isascii() == (problem.lang == "en")
        if problem.family == "sums":
            asked = question.removeprefix("compute ").removeprefix("求")
            assert correct(completion, str(sum(map(int, asked.replace("-", "+-").split("+")))))
        else:
            last = parse_attempts(completion)[-1]
            assert last.totals[-1] == last.stated_target and str(last.stated_target) in question
    assert few_shot(0)(problem) == apply_template("small", problem.prompt)


def test_other_seeds_give_other_examples():
    assert few_shot(2, seed=1)(SIGNS[0]) != few_shot(2, seed=0)(SIGNS[0])


class Particular(Sampler):
    """Answers right only where `likes` is pleased with the prompt."""

    def __init__(self, likes):
        self.likes = likes

    def generate(self, prompt_ids, params, stream_ids=None):
        texts = [TOKENIZER.decode(ids) for ids in prompt_ids]
        rows = []
        for text, stream in zip(texts, stream_ids, strict=True):
            answer = SIGNS[stream].solution if self.likes(text) else "1"
            rows += [[*TOKENIZER.encode(f"<think> ok </think> <answer> {answer} </answer>"), 1]] * params.n
        return Rollouts(prompt_ids, rows, [], [], ["stop"] * len(rows), 0)


def test_the_differences_are_those_of_the_ways_to_ask():
    rows = prompt_sensitivity(Particular(lambda text: text.count("User") == 1), TOKENIZER, SIGNS, k=2)
    assert rows[USUAL]["pass_at_1"] == 1 and rows[USUAL]["difference"] == 0
    low, high = rows["few-shot"]["difference_ci95"]
    assert rows["few-shot"]["difference"] == low == -1 and high < 0
    assert rows[ALL]["difference"] == 0 and rows["please"]["n"] == len(SIGNS)

    polite = prompt_sensitivity(Particular(lambda text: "please" in text), TOKENIZER, SIGNS, k=2)
    low, high = polite["please"]["difference_ci95"]
    assert polite[USUAL]["pass_at_1"] == 0 and 0 < low <= polite["please"]["difference"] <= high < 1
    assert polite[ALL]["difference"] == pytest.approx(polite["please"]["difference"] / 6)
