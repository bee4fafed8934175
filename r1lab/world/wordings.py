"""How much a model depends on the way it is asked: zero-shot, with solved examples, in other words.

The paper finds that R1 is sensitive to prompts and that few-shot prompts consistently hurt it
(v1 section 5, v2 section 6). The base of this world has read prompts with two solved examples.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from r1lab.errors import InputError
from r1lab.evaluation.estimators import bootstrap_ci, paired_bootstrap
from r1lab.evaluation.measure import Asking, evaluate
from r1lab.rewards import parse
from r1lab.sampling import Sampler
from r1lab.sources.templates import apply_template
from r1lab.task import Problem
from r1lab.world import FAMILIES
from r1lab.world.corpus import CORPUS, documents
from r1lab.world.words import NO

USUAL, FEW_SHOT, ALL = "usual", "few-shot", "other wordings"
# Of words that the tokenizer knows; the corpus asks in none of these ways.
AROUND = {
    "en": {
        "please": "please {prompt}",
        "full stop": "{prompt}.",
        "step by step": "{prompt} step by step",
        "check": "{prompt}, check the answer",
    },
    "zh": {
        "please": "请{prompt}",
        "full stop": "{prompt}.",
        "step by step": "{prompt}先想后答",
        "check": "{prompt},验答",
    },
}
WORDINGS, REPHRASED = tuple(AROUND["en"]), ("turned round", "new words")
NAMES = (USUAL, *WORDINGS, *REPHRASED)
# Writers who persist until they are right, in one language and the right format.
SOLVING = replace(
    CORPUS, patience={14: 1.0}, sums_styles={"step by step": 1.0}, formats={"right": 1.0},
    foreign_thinking={"en": 0.0, "zh": 0.0, "fr": 0.0}, mixed_thinking=0.0, few_shot=0.0,
)  # fmt: skip
HARDEST_EXAMPLE = 2  # level in signs: more attempts would leave no room for the answer


def has_wordings(problem: Problem) -> bool:
    """Are there other wordings for its family and language?"""
    return problem.lang in FAMILIES[problem.family].rephrased


def wordings(problem: Problem) -> dict[str, str]:
    """The question in other words, by the wording's name.

    Raises InputError for a family or language that has no other wordings.
    """
    if not has_wordings(problem):
        raise InputError(
            f"{problem.family} in {problem.lang!r} has no other wordings; take signs, countdown or "
            "sums, in English or Chinese."
        )
    family = FAMILIES[problem.family]
    templates = AROUND[problem.lang] | family.rephrased[problem.lang]
    return {name: family.ask(problem, template) for name, template in templates.items()}


def asking(name: str, shots: int = 2) -> Asking:
    """The way of this name to ask a question: usual, few-shot, or one of the other wordings."""
    if name == USUAL:
        return "small"
    if name == FEW_SHOT:
        return few_shot(shots)
    return lambda problem: apply_template("small", wordings(problem)[name])


def few_shot(shots: int = 2, seed: int = 0) -> Callable[[Problem], str]:
    """Asks each question after `shots` solved examples of its family, in the corpus' own form.

    The examples are of the training side, in the question's language, solved in the right format,
    and others for each question; those of signs are of level 2 at most.
    """

    def ask(problem: Problem) -> str:
        config = replace(
            SOLVING, families={problem.family: 1.0}, langs={problem.lang: 1.0},
            signs_levels={min(problem.level, HARDEST_EXAMPLE): 1.0},
        )  # fmt: skip
        stream = documents(config, f"few-shot/{seed}/{problem.id}")
        examples = islice((pair for pair in stream if _is_solved(pair[1])), shots)
        before = "".join(f"{prompt} {completion} " for prompt, completion in examples)
        return before + apply_template("small", problem.prompt)

    return ask


def _is_solved(completion: str) -> bool:
    """Has it any thinking, and does that not end with a no?"""
    words = parse(completion).thinking.lower().split()
    return bool(words) and words[-1] not in NO.values()


def prompt_sensitivity(
    sampler: Sampler, tokenizer, problems: Sequence[Problem], *, k: int = 4, **options
) -> dict[str, dict]:
    """pass@1 (lenient) under each way to ask, and its difference to the usual way.

    {way: {"pass_at_1", "pass_at_1_ci95", "difference", "difference_ci95", "format", "mean_tokens",
    "n"}}; the ways are "usual", "few-shot", each other wording, and "other wordings", their mean.
    Differences are paired problem by problem, and all ways share their random streams.
    `options` are those of `evaluate` (max_tokens, seed ...); prompt, examples and answer together
    must fit the model.
    """
    options = {"k": k, "max_tokens": 288, **options}
    right, rows = {}, {}
    for name in (USUAL, FEW_SHOT, *NAMES[1:]):
        found = evaluate(sampler, tokenizer, problems, template=asking(name), **options)
        summary = found.summary()
        right[name] = found["correct"].mean(axis=1)
        rows[name] = {measure: summary[measure] for measure in ("format", "mean_tokens")}
    right[ALL] = np.mean([right[name] for name in NAMES[1:]], axis=0)
    for name, values in right.items():
        mean, *ci95 = bootstrap_ci(values, found.levels)
        difference, *difference_ci95 = paired_bootstrap(values, right[USUAL], found.levels)
        rows[name] = rows.get(name, {}) | {
            "pass_at_1": mean,
            "pass_at_1_ci95": ci95,
            "difference": difference,
            "difference_ci95": difference_ci95,
            "n": len(values),
        }
    return rows
