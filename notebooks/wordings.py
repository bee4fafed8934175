"""The small world's questions asked otherwise: in other words, after solved examples, in French.

The paper finds that R1 is sensitive to prompts and that few-shot prompts consistently hurt it
(v1 section 5, v2 section 6). The base of this world has read prompts with two solved examples.
Lesson 09 compares the ways to ask; lesson 06 adds French to what is learned.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from r1lab.errors import InputError
from r1lab.evaluation.estimators import macro_mean, paired_bootstrap
from r1lab.evaluation.measure import evaluate
from r1lab.rewards import parse
from r1lab.sampling import Sampler
from r1lab.sources.templates import apply_template
from r1lab.stages.samples import Example
from r1lab.task import Problem
from r1lab.world import FAMILIES
from r1lab.world.corpus import CORPUS, TABLE, documents, join_completion
from r1lab.world.words import NO, SAID, translate

SOLVING = replace(CORPUS, **TABLE["solving"])  # whose writers go on until they have solved it
USUAL, FEW_SHOT, ALL = "usual", "few-shot", "other wordings"
AROUND = SAID["around"]
NAMES = (USUAL, *AROUND["en"], "turned round", "new words")


def ask(problem: Problem, template: str) -> str:
    """Ask the problem by another template, which may also hold the whole `{prompt}`."""
    usual = re.escape(FAMILIES[problem.family].questions[problem.lang])
    slots = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", usual)
    values = re.fullmatch(slots, problem.prompt).groupdict()
    return template.format(**values | {"prompt": problem.prompt})


def ask_in(problem: Problem, lang: str) -> Problem:
    """Ask the problem in another language; leave it where its family has it in English only."""
    questions = FAMILIES[problem.family].questions
    if lang not in questions:
        return problem
    return replace(problem, lang=lang, prompt=ask(problem, questions[lang]))


def in_french(problem: Problem, completion: str) -> Example:
    """The same puzzle asked and thought about in French; as it was where there is no thinking.

    The paper's R1 answers other languages in English or Chinese; such examples are what may fix it.
    """
    parts = parse(completion).halves
    asked = ask_in(problem, "fr")
    if parts is None or asked == problem:
        return problem, completion
    thinking, answer = parts
    return asked, join_completion(translate(thinking, "fr"), answer)


def few_shot(shots: int = 2, seed: int = 0) -> Callable[[Problem], str]:
    """Ask each question after `shots` solved examples of its family, in the corpus' own form.

    The examples are of the training side, in the question's language, solved in the right format,
    and others for each question; those of signs are of level 2 at most.
    """

    def after_examples(problem):
        config = replace(
            SOLVING, families={problem.family: 1.0}, langs={problem.lang: 1.0},
            signs_levels={min(problem.level, 2): 1.0},  # more attempts would leave no room for the answer
        )  # fmt: skip
        stream = documents(config, f"few-shot/{seed}/{problem.id}")
        solved = itertools.islice((example for example in stream if _is_solved(example[1])), shots)
        before = "".join(f"{prompt} {completion} " for prompt, completion in solved)
        return before + apply_template("small", problem.prompt)

    return after_examples


def _is_solved(completion):
    """Has it any thinking, and does that not end with a no?"""
    words = parse(completion).thinking.lower().split()
    return bool(words) and words[-1] not in NO.values()


def wordings(problem: Problem) -> dict[str, str]:
    """Ask the question in other words, by the wording's name.

    Raises InputError for a family or language that has no other wordings.
    """
    rephrased = SAID["rephrased"].get(problem.family, {}).get(problem.lang)
    if rephrased is None:
        raise InputError(
            f"{problem.family} in {problem.lang!r} has no other wordings; take signs, countdown or "
            "sums, in English or Chinese."
        )
    templates = AROUND[problem.lang] | rephrased
    return {name: ask(problem, template) for name, template in templates.items()}


def asking(name: str) -> str | Callable[[Problem], str]:
    """Find the way of this name to ask: a template's name, or what writes the text to complete."""
    if name == FEW_SHOT:
        return few_shot()
    return "small" if name == USUAL else lambda asked: apply_template("small", wordings(asked)[name])


def prompt_sensitivity(
    sampler: Sampler, tokenizer, problems: Sequence[Problem], *, k: int = 4, max_tokens: int = 288,
    seed: int = 0
) -> dict[str, dict]:  # fmt: skip
    """Measure pass@1 (lenient) under each way to ask, and its difference to the usual way.

    {way: {"pass_at_1", "difference", "difference_ci95", "n"}}; the ways are "usual", "few-shot", each
    other wording, and "other wordings", their mean. Differences are paired problem by problem, and all
    ways share their random streams. Prompt, examples and answer together must fit the model.
    """
    right = {}
    for name in (USUAL, FEW_SHOT, *NAMES[1:]):
        evaluation = evaluate(
            sampler, tokenizer, problems, k=k, max_tokens=max_tokens, seed=seed, template=asking(name)
        )
        right[name] = evaluation["correct"].mean(axis=1)
    right[ALL] = np.mean([right[name] for name in NAMES[1:]], axis=0)
    rows = {}
    for name, values in right.items():
        rows[name] = {"pass_at_1": macro_mean(values, evaluation.levels), "n": len(values)}
        paired = paired_bootstrap(values, right[USUAL], evaluation.levels)
        rows[name] |= {"difference": paired.mean, "difference_ci95": list(paired[1:])}
    return rows
