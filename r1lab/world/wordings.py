"""How much a model depends on the way it is asked: zero-shot, with solved examples, in other words.

The paper finds that R1 is sensitive to prompts and that few-shot prompts consistently hurt it
(v1 section 5, v2 section 6). The base of this world has read prompts with two solved examples.
"""

from collections.abc import Sequence

import numpy as np

from r1lab.errors import InputError
from r1lab.evaluation.estimators import bootstrap_ci, paired_bootstrap
from r1lab.evaluation.measure import Asking, evaluate
from r1lab.sampling import Sampler
from r1lab.sources.templates import apply_template
from r1lab.task import Problem
from r1lab.world import FAMILIES
from r1lab.world.corpus import few_shot
from r1lab.world.words import SAID

USUAL, FEW_SHOT, ALL = "usual", "few-shot", "other wordings"
AROUND = SAID["around"]
NAMES = (USUAL, *AROUND["en"], "turned round", "new words")


def wordings(problem: Problem) -> dict[str, str]:
    """Ask the question in other words, by the wording's name.

    Raises InputError for a family or language that has no other wordings.
    """
    family = FAMILIES[problem.family]
    if problem.lang not in family.rephrased:
        raise InputError(
            f"{problem.family} in {problem.lang!r} has no other wordings; take signs, countdown or "
            "sums, in English or Chinese."
        )
    templates = AROUND[problem.lang] | family.rephrased[problem.lang]
    return {name: family.ask(problem, template) for name, template in templates.items()}


def asking(name: str) -> Asking:
    """Find the way of this name to ask a question: usual, few-shot, or one of the other wordings."""
    if name in (USUAL, FEW_SHOT):
        return "small" if name == USUAL else few_shot()
    return lambda problem: apply_template("small", wordings(problem)[name])


def prompt_sensitivity(
    sampler: Sampler, tokenizer, problems: Sequence[Problem], *, k: int = 4, max_tokens: int = 288,
    seed: int = 0,
) -> dict[str, dict]:  # fmt: skip
    """Measure pass@1 (lenient) under each way to ask, and its difference to the usual way.

    {way: {"pass_at_1", "difference", "difference_ci95", "n"}}; the ways are "usual", "few-shot", each
    other wording, and "other wordings", their mean. Differences are paired problem by problem, and all
    ways share their random streams. Prompt, examples and answer together must fit the model.
    """
    options = {"k": k, "max_tokens": max_tokens, "seed": seed}
    right = {}
    for name in (USUAL, FEW_SHOT, *NAMES[1:]):
        found = evaluate(sampler, tokenizer, problems, template=asking(name), **options)
        right[name] = found["correct"].mean(axis=1)
    right[ALL] = np.mean([right[name] for name in NAMES[1:]], axis=0)
    rows = {}
    for name, values in right.items():
        difference, *ci95 = paired_bootstrap(values, right[USUAL], found.levels)
        mean = bootstrap_ci(values, found.levels).mean
        rows[name] = {
            "pass_at_1": mean, "difference": difference, "difference_ci95": ci95, "n": len(values)
        }  # fmt: skip
    return rows
