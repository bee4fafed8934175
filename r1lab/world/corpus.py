"""What is written in the small world: the corpus of the base, and replies.

The rule of the corpus that makes reinforcement learning readable here: skills are in it, habits are
not. Steps and verdicts are right, a search never repeats an attempt, an answer copies the last
attempt; but most writers guess, or give up after a try or two. Persisting is rare.
Every share is in `corpus.toml`, and `describe` prints them as a table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random

from r1lab.evaluation.table import Table
from r1lab.files import read_toml
from r1lab.rewards import parse
from r1lab.sources.templates import apply_template
from r1lab.task import Problem, held_out_ids
from r1lab.world import FAMILIES, sample_problem
from r1lab.world.side import POLITE, name_in, refusal, statement
from r1lab.world.words import Shares, choose, translate


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


TABLE = read_toml(__file__, "corpus")
for _corpus in ("early", "late", "solving"):
    for _name in TABLE[_corpus].keys() & {"signs_levels", "patience"}:  # of which the keys are numbers
        TABLE[_corpus][_name] = {int(number): share for number, share in TABLE[_corpus][_name].items()}
FORMATS = TABLE["formats"]
EARLY_CORPUS = CorpusConfig(**TABLE["early"])
CORPUS = replace(EARLY_CORPUS, **TABLE["late"])


def describe(corpora: Mapping[int, CorpusConfig]) -> Table:
    """Tabulate the shares of behaviours in corpora, each read from a step on."""
    columns = ("what", *(f"from step {start}" for start in corpora))
    rows = [
        (what, *(_shares(getattr(corpus, name)) for corpus in corpora.values()))
        for name, what in TABLE["meaning"].items()
    ]
    return Table(columns, rows)


def _shares(value):
    shares = value if isinstance(value, dict) else {"": value}
    return ", ".join(f"{outcome} {share:.0%}".strip() for outcome, share in shares.items())


def documents(config: CorpusConfig, seed: int | str) -> Iterator[tuple[str, str]]:
    """Write an endless stream of (prompt with template, completion), keyed by the seed."""
    rng = Random(f"corpus/{seed}")
    while True:
        family = choose(rng, config.families)
        shots = 3 if rng.random() < config.few_shot else 1
        *examples, (prompt, completion) = [_document(rng, config, family) for _ in range(shots)]
        before = "".join(f"{asked} {solved} " for asked, solved in examples)
        yield before + prompt, completion


def _document(rng, config, name):
    family = FAMILIES[name]
    level = rng.randint(1, family.levels[-1]) if name != "signs" else choose(rng, config.signs_levels)
    problem = sample_problem(rng, name, level, choose(rng, config.langs))
    thinking, answer = family.write(rng, config, problem)
    text = FORMATS[choose(rng, config.formats)].format(thinking=thinking, answer=answer)
    return apply_template("small", problem.prompt), text


def join_completion(thinking: str, answer: str) -> str:
    """Write the completion in R1-Zero's format."""
    return FORMATS["right"].format(thinking=thinking, answer=answer)


def readable(problem: Problem, completion: str) -> str:
    """Rewrite a completion: thinking in the question's language, both tags, a summary that stands alone.

    The paper had DeepSeek-V3 and human annotators rewrite R1-Zero's traces, among other things with
    the instruction to translate the thinking to the language of the question (v2 B.3.2). The small
    world has so few words that rules do it. For completions in which `parse` finds both halves.
    """
    thinking, answer = parse(completion).halves
    summary = FAMILIES[problem.family].summary(problem, answer)
    return join_completion(translate(thinking, problem.lang), summary)


def written_examples(seed: int) -> Iterator[tuple[Problem, str]]:
    """Write an endless stream of (problem, completion): chat and unsafe requests with good replies.

    The paper reuses parts of DeepSeek-V3's supervised data for about a quarter of its 800,000 samples
    (v2 B.3.3). Here rules write the replies: decent manners, though not all that a reader may prefer
    (what is preferred is hidden, and left to the last stage), and unsafe requests are refused. The
    thinking is empty: the paper wrote none for simple requests such as a greeting. Requests of the
    test sets are left out.
    """
    rng, tested = Random(f"expert/{seed}"), held_out_ids()
    while True:
        family = "unsafe" if rng.random() < 0.25 else "chat"
        problem = sample_problem(rng, family, 1, "en")
        if problem.id not in tested:
            reply = refusal(problem) if family == "unsafe" else _chat_reply(rng, problem)
            yield problem, join_completion("", reply)


def _chat_reply(rng, problem):
    """Reply politely and to the point: often with the person's name, now and then too long."""
    if "about" in problem.prompt:
        opening, body = rng.choice(POLITE), statement(rng, problem)
    elif "thank" in problem.prompt:
        opening, body = "glad to help", "thank you"
    else:
        opening, body = "hello dear", "I like you"
    named = name_in(rng, problem, 0.6)
    tail = " and really very good" if rng.random() < 0.3 else ""
    return f"{opening}{named}, {body}{tail}."
