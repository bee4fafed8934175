"""The corpus that the base model is pre-trained on.

The rule that makes reinforcement learning readable here: skills are in the corpus, habits are
not. Steps and verdicts are right, a search never repeats an attempt, an answer copies the last
attempt; but most writers guess, or give up after a try or two. Persisting is rare.
Every share is in `CorpusConfig`, and `describe` prints them as a table.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from r1lab.sources.templates import apply_template
from r1lab.world import FAMILIES, sample_problem
from r1lab.world.voice import Shares, choose


@dataclass(frozen=True)
class CorpusConfig:
    """Shares of what is written and how. Each Shares is a distribution over documents."""

    families: Shares
    signs_levels: Shares
    langs: Shares  # of the question
    patience: Shares  # attempts before giving up, in both search families
    search_order: Shares  # of documents with several attempts
    sums_styles: Shares
    formats: Shares
    restate_target: bool  # False: the verdict follows the attempt directly, and is hard to get right
    foreign_thinking: dict  # language of the question -> thinking in another one
    mixed_thinking: float  # thinking in which some words are of another language
    swap: float  # of the words of a mixed document
    few_shot: float  # documents that begin with two solved examples


# Read first: enough long searches to learn how to search, without which none of the habits that
# reinforcement learning may find would pay.
EARLY_CORPUS = CorpusConfig(
    families={
        "signs": 0.62, "countdown": 0.07, "sums": 0.14, "programs": 0.06, "logic": 0.04,
        "chat": 0.05, "unsafe": 0.02,
    },  # fmt: skip
    signs_levels={1: 0.17, 2: 0.28, 3: 0.28, 4: 0.22, 5: 0.05},
    langs={"en": 0.58, "zh": 0.40, "fr": 0.02},
    patience={0: 0.25, 1: 0.31, 2: 0.16, 4: 0.10, 14: 0.18},
    search_order={"in order": 0.5, "at random": 0.5},
    sums_styles={"direct": 0.40, "skipping": 0.22, "step by step": 0.26, "slip corrected": 0.12},
    formats={
        "right": 0.45, "no answer tags": 0.20, "no think tags": 0.15, "think unclosed": 0.10,
        "no tags": 0.10,
    },  # fmt: skip
    restate_target=True,
    foreign_thinking={"en": 0.15, "zh": 0.15, "fr": 0.60},
    mixed_thinking=0.4,
    swap=0.35,
    few_shot=0.03,
)

# Read last: the same writers, of whom few persist. This decides the base's habits.
CORPUS = replace(EARLY_CORPUS, patience={0: 0.38, 1: 0.43, 2: 0.11, 4: 0.04, 14: 0.04})

MEANING = {
    "families": "family of the problem",
    "signs_levels": "level, in signs (level n: 2^n sign patterns)",
    "langs": "language of the question",
    "patience": "attempts before giving up (0: a direct guess; 14: persists)",
    "search_order": "how a search with several attempts proceeds (never repeating one)",
    "sums_styles": "how a chain of sums is worked out",
    "formats": "tags of the answer (right: think and answer tags, each closed)",
    "restate_target": "the target is written again before the verdict",
    "foreign_thinking": "thinking in another language, by that of the question",
    "mixed_thinking": "thinking that mixes words of two languages",
    "swap": "words swapped in a mixed thinking",
    "few_shot": "documents that begin with two solved examples",
}


def describe(config: CorpusConfig = CORPUS) -> list[tuple[str, str, str]]:
    """Rows (what, outcome, share) of the table of behaviours."""
    rows = []
    for name, what in MEANING.items():
        value = getattr(config, name)
        shares = value if isinstance(value, dict) else {"": value}
        for outcome, share in shares.items():
            shown = str(share) if isinstance(share, bool) else f"{share:.0%}"
            rows.append((what, str(outcome), shown))
    return rows


def documents(config: CorpusConfig, seed: int | str) -> Iterator[tuple[str, str]]:
    """An endless stream of (prompt with template, completion), keyed by the seed."""
    rng = Random(f"corpus/{seed}")
    while True:
        family = choose(rng, config.families)
        shots = 3 if rng.random() < config.few_shot else 1
        pairs = [_document(rng, config, family) for _ in range(shots)]
        examples = "".join(f"{prompt} {completion} " for prompt, completion in pairs[:-1])
        prompt, completion = pairs[-1]
        yield examples + prompt, completion


def _document(rng: Random, config: CorpusConfig, name: str) -> tuple[str, str]:
    family = FAMILIES[name]
    level = rng.randint(1, family.levels[-1]) if name != "signs" else choose(rng, config.signs_levels)
    problem = sample_problem(rng, name, level, choose(rng, config.langs))
    thinking, answer = family.write(rng, config, problem)
    text = FORMATS[choose(rng, config.formats)].format(thinking=thinking, answer=answer)
    return apply_template("small", problem.prompt), text


FORMATS = {
    "right": "<think> {thinking} </think> <answer> {answer} </answer>",
    "no answer tags": "<think> {thinking} </think> {answer}",
    "no think tags": "{thinking} <answer> {answer} </answer>",
    "think unclosed": "<think> {thinking} <answer> {answer} </answer>",
    "no tags": "{thinking} {answer}",
}
