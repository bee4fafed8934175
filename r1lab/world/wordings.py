"""How much a model depends on the way it is asked: zero-shot, with solved examples, in other words.

The paper finds that R1 is sensitive to prompts and that few-shot prompts consistently hurt it
(v1 section 5, v2 section 6). The base of this world has read prompts with two solved examples.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from r1lab.errors import InputError
from r1lab.evaluation.estimators import bootstrap_ci, paired_bootstrap
from r1lab.evaluation.measure import Asking, Evaluation, evaluate, merge
from r1lab.rewards.language import thinking
from r1lab.sampling import Sampler
from r1lab.sources.templates import apply_template
from r1lab.task import Problem
from r1lab.world.corpus import CORPUS, documents
from r1lab.world.words import NO

USUAL, FEW_SHOT, ALL = "usual", "few-shot", "other wordings"
# Of words that the tokenizer knows; the corpus asks in none of these ways.
WORDINGS: dict[str, dict[str, str]] = {
    "please": {"en": "please {prompt}", "zh": "请{prompt}"},
    "full stop": {"en": "{prompt}.", "zh": "{prompt}."},
    "step by step": {"en": "{prompt} step by step", "zh": "{prompt}先想后答"},
    "check": {"en": "{prompt}, check the answer", "zh": "{prompt},验答"},
}
REPHRASED: dict[str, dict[str, dict[str, str]]] = {
    "turned round": {
        "signs": {"en": "from {numbers} make {target}", "zh": "得{target}用{numbers}"},
        "countdown": {"en": "with {numbers} reach {target}", "zh": "算{target}以{numbers}"},
        "sums": {"en": "{terms} is", "zh": "{terms}是"},
    },
    "new words": {
        "signs": {"en": "numbers {numbers}, target {target}", "zh": "数{numbers}目{target}"},
        "countdown": {"en": "total {target} by {numbers}", "zh": "数{numbers}总{target}"},
        "sums": {"en": "total {terms}", "zh": "总{terms}"},
    },
}
# Writers who persist until they are right, in one language and the right format.
SOLVING = replace(
    CORPUS, patience={14: 1.0}, sums_styles={"step by step": 1.0}, formats={"right": 1.0},
    foreign_thinking={"en": 0.0, "zh": 0.0, "fr": 0.0}, mixed_thinking=0.0, few_shot=0.0,
)  # fmt: skip
HARDEST_EXAMPLE = 2  # level in signs: more attempts would leave no room for the answer


NAMES = (USUAL, *WORDINGS, *REPHRASED)


def has_wordings(problem: Problem) -> bool:
    """Are there other wordings for its family and language?"""
    rephrased = [by_family.get(problem.family, {}) for by_family in REPHRASED.values()]
    return all(problem.lang in templates for templates in (*WORDINGS.values(), *rephrased))


def in_wordings(
    problems: Sequence[Problem], names: Sequence[str], seed: str
) -> list[Problem]:
    """Each problem asked in a wording that is drawn from `names`, by the seed and its place.

    A problem that has no other wordings is asked as usual.
    """
    rng = random.Random(f"wordings/{seed}")
    drawn = [(problem, rng.choice(names)) for problem in problems]
    return [
        replace(problem, prompt=wordings(problem)[name])
        if name != USUAL and has_wordings(problem)
        else problem
        for problem, name in drawn
    ]


def wordings(problem: Problem) -> dict[str, str]:
    """The question in other words, by the wording's name.

    Raises InputError for a family or language that has no other wordings.
    """
    if not has_wordings(problem):
        raise InputError(
            f"{problem.family} in {problem.lang!r} has no other wordings; take signs, countdown or "
            "sums, in English or Chinese."
        )
    fields = {
        "prompt": problem.prompt,
        "target": problem.meta.get("target"),
        "numbers": ",".join(map(str, problem.meta.get("numbers", []))),
        "terms": re.sub(r"[^-+\d]", "", problem.prompt),  # of a sum, as they were asked
    }
    rephrased = {name: by_family[problem.family] for name, by_family in REPHRASED.items()}
    templates = WORDINGS | rephrased
    return {name: by_lang[problem.lang].format(**fields) for name, by_lang in templates.items()}


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
    words = thinking(completion).split()
    return bool(words) and words[-1] not in NO.values()


def prompt_sensitivity(
    sampler: Sampler,
    tokenizer,
    problems: Sequence[Problem],
    *,
    k: int = 4,
    shots: int = 2,
    gather: Callable[[Evaluation], list[Evaluation]] = lambda part: [part],
    **options,
) -> dict[str, dict]:
    """pass@1 (lenient) under each way to ask, and its difference to the usual way.

    {way: {"pass_at_1", "pass_at_1_ci95", "difference", "difference_ci95", "format", "mean_tokens",
    "n"}}; the ways are "usual", "few-shot", each other wording, and "other wordings", their mean.
    Differences are paired problem by problem, and all ways share their random streams.
    `options` are those of `evaluate` (max_tokens, seed, shard ...); prompt, examples and answer
    together must fit the model. `gather` takes a process's share to the shares of all.
    """
    ways = {name: asking(name, shots) for name in (USUAL, FEW_SHOT, *WORDINGS, *REPHRASED)}
    options = {"max_tokens": 288, **options}
    asked = {
        name: merge(gather(evaluate(sampler, tokenizer, problems, k=k, template=way, **options)))
        for name, way in ways.items()
    }
    usual = asked[USUAL]["correct"].mean(axis=1)
    rows = {}
    for name, evaluation in asked.items():
        row = _against(evaluation["correct"].mean(axis=1), usual, evaluation.levels)
        summary = evaluation.summary()
        rows[name] = row | {name: summary[name] for name in ("format", "mean_tokens")}
    others = np.mean([asked[name]["correct"].mean(axis=1) for name in (*WORDINGS, *REPHRASED)], 0)
    rows[ALL] = _against(others, usual, asked[USUAL].levels)
    return rows


def _against(values: np.ndarray, usual: np.ndarray, levels: np.ndarray) -> dict:
    mean, *ci95 = bootstrap_ci(values, levels)
    difference, *difference_ci95 = paired_bootstrap(values, usual, levels)
    return {
        "pass_at_1": mean,
        "pass_at_1_ci95": ci95,
        "difference": difference,
        "difference_ci95": difference_ci95,
        "n": len(values),
    }
