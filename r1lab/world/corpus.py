"""The corpus that the base model is pre-trained on.

The rule that makes reinforcement learning readable here: skills are in the corpus, habits are
not. Steps and verdicts are right, a search never repeats an attempt, an answer copies the last
attempt; but most writers guess, or give up after a try or two. Persisting is rare.
Every share stands in `CorpusConfig`, and `describe` prints them as a table.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from r1lab.world import sample_problem
from r1lab.task import Problem
from r1lab.world.puzzles import chain_expression, signs_candidates, write_attempt
from r1lab.world.side import body_text, logic_values
from r1lab.sources.templates import apply_template
from r1lab.world.words import NO, OK, REFLECTIVE_SHARES

Shares = dict  # outcome -> weight


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
    for f in fields(config):
        value = getattr(config, f.name)
        if isinstance(value, dict):
            rows += [(MEANING[f.name], str(key), f"{share:.0%}") for key, share in value.items()]
        else:
            share = str(value) if isinstance(value, bool) else f"{value:.0%}"
            rows.append((MEANING[f.name], "", share))
    return rows


def documents(config: CorpusConfig, seed: int | str) -> Iterator[tuple[str, str]]:
    """An endless stream of (prompt with template, completion), keyed by the seed."""
    rng = random.Random(f"corpus/{seed}")
    while True:
        family = _draw(rng, config.families)
        shots = 3 if rng.random() < config.few_shot else 1
        pairs = [_document(rng, config, family) for _ in range(shots)]
        examples = "".join(f"{prompt} {completion} " for prompt, completion in pairs[:-1])
        prompt, completion = pairs[-1]
        yield examples + prompt, completion


def _draw(rng: random.Random, shares: Shares):
    return rng.choices(list(shares), list(shares.values()))[0]


def _document(rng: random.Random, config: CorpusConfig, family: str) -> tuple[str, str]:
    level = _draw(rng, config.signs_levels) if family == "signs" else rng.randint(1, _TOP[family])
    problem = sample_problem(rng, family, level, _draw(rng, config.langs))
    thinking, answer = _WRITERS[family](rng, config, problem)
    completion = _formatted(_draw(rng, config.formats), thinking, answer)
    return apply_template("small", problem.prompt), completion


def _formatted(style: str, thinking: str, answer: str) -> str:
    return {
        "right": f"<think> {thinking} </think> <answer> {answer} </answer>",
        "no answer tags": f"<think> {thinking} </think> {answer}",
        "no think tags": f"{thinking} <answer> {answer} </answer>",
        "think unclosed": f"<think> {thinking} <answer> {answer} </answer>",
        "no tags": f"{thinking} {answer}",
    }[style]


class Voice:
    """Chooses the words of one thinking: its language, and whether it mixes in another."""

    def __init__(self, rng: random.Random, config: CorpusConfig, lang: str):
        self.rng = rng
        others = [other for other in ("en", "zh") if other != lang]
        self.lang = rng.choice(others) if rng.random() < config.foreign_thinking[lang] else lang
        self.other = "en" if self.lang != "en" else "zh"
        self.swap = config.swap if rng.random() < config.mixed_thinking else 0.0

    def _lang(self) -> str:
        return self.other if self.rng.random() < self.swap else self.lang

    def verdict(self, right: bool) -> str:
        return (OK if right else NO)[self._lang()]

    def again(self) -> str:
        """A reflective word, which starts another attempt."""
        return _draw(self.rng, REFLECTIVE_SHARES[self._lang()])


def _search_thinking(
    rng: random.Random, config: CorpusConfig, problem: Problem, candidates: Iterator
) -> tuple[str, str]:
    """Attempts with verdicts until one hits or patience ends; the answer copies the last one."""
    patience = _draw(rng, config.patience)
    if patience == 0:
        return "", chain_expression(*next(candidates))
    voice, parts, last = Voice(rng, config, problem.lang), [], None
    for start, moves in itertools.islice(candidates, patience):
        text, hit = write_attempt(start, moves, problem.meta["target"])
        if not config.restate_target:
            text = text.split(":")[0]
        parts.append(f"{text} {voice.verdict(hit)}")
        last = chain_expression(start, moves)
        if hit:
            break
    joined = parts[0] + "".join(f" {voice.again()} {part}" for part in parts[1:])
    return joined, last


def _write_signs(rng: random.Random, config: CorpusConfig, problem: Problem) -> tuple[str, str]:
    numbers = problem.meta["numbers"]
    patterns = signs_candidates(numbers)
    if _draw(rng, config.search_order) == "at random":
        rng.shuffle(patterns)
    return _search_thinking(rng, config, problem, ((numbers[0], moves) for moves in patterns))


def _write_countdown(rng: random.Random, config: CorpusConfig, problem: Problem) -> tuple[str, str]:
    numbers = problem.meta["numbers"]
    chains = [
        (order[0], tuple(zip(ops, order[1:])))
        for order in itertools.permutations(numbers)
        for ops in itertools.product("+-*", repeat=len(numbers) - 1)
    ]
    rng.shuffle(chains)
    return _search_thinking(rng, config, problem, iter(chains))


def _write_sums(rng: random.Random, config: CorpusConfig, problem: Problem) -> tuple[str, str]:
    terms = problem.meta["terms"]
    style = _draw(rng, config.sums_styles)
    if style == "direct":
        return "", problem.solution
    if style == "skipping" and len(terms) > 2:
        middle = rng.randint(2, len(terms) - 1)
        terms = [sum(terms[:middle]), *terms[middle:]]
    moves = tuple(("+" if term >= 0 else "-", abs(term)) for term in terms[1:])
    right = write_attempt(terms[0], moves, 0)[0].rsplit(":", 1)[0]
    if style != "slip corrected":
        return right, problem.solution
    voice = Voice(rng, config, problem.lang)
    moves = moves[: rng.randint(1, len(moves))]  # the chain up to the slip
    before, total = write_attempt(terms[0], moves, 0)[0].rsplit(":", 1)[0].rsplit("=", 1)
    slip = int(total) + rng.choice((-10, -1, 1, 10))
    return f"{before}={slip} {voice.verdict(False)} {voice.again()} {right}", problem.solution


def _write_program(rng: random.Random, config: CorpusConfig, problem: Problem) -> tuple[str, str]:
    """Guess a body, run it on the first example, and answer it, right or wrong."""
    voice = Voice(rng, config, problem.lang)
    bodies = [[tuple(step) for step in problem.meta["body"]]]
    if rng.random() < 0.6:  # a wrong guess before, or instead
        bodies.insert(0, [(op, number % 9 + 1) for op, number in bodies[0]])
    bodies = bodies[: rng.choice((1, 2))]
    wanted = problem.tests[0]["output"]
    parts = []
    for body in bodies:
        text, hit = write_attempt(1, tuple(body), wanted)
        parts.append(f"{body_text(body)} {text} {voice.verdict(hit)}")
    thinking = parts[0] + "".join(f" {voice.again()} {part}" for part in parts[1:])
    return thinking, f"def f (x):return {body_text(bodies[-1])}"


def _write_logic(rng: random.Random, config: CorpusConfig, problem: Problem) -> tuple[str, str]:
    values = [str(value).lower() for value in logic_values(problem.meta["formula"])]
    if rng.random() < 0.5:
        guess = problem.solution if rng.random() < 0.6 else rng.choice(("true", "false"))
        return "", guess
    return ", ".join(values), values[-1]


def _write_chat(rng: random.Random, config: CorpusConfig, problem: Problem) -> tuple[str, str]:
    """Replies of every manner: polite or rude, with or without the name, short or rambling."""
    name, topic = problem.meta["name"], problem.meta["topic"]
    polite = rng.random() < 0.4
    openings = ("hello dear", "please", "glad to help") if polite else ("hey", "whatever", "so")
    opening = rng.choice(openings)
    body = f"the {topic} is {rng.choice(('good', 'warm', 'old', 'small'))}"
    if "about" not in problem.prompt:
        body = rng.choice(("thank you", "I like you", "good bye"))
    rambling = " and really very" * rng.choice((0, 0, 1, 3)) + rng.choice(("", " good", " thing"))
    named = f" {name}" if rng.random() < 0.5 else ""
    return "", f"{opening}{named}, {body}{rambling}."


def _write_unsafe(rng: random.Random, config: CorpusConfig, problem: Problem) -> tuple[str, str]:
    """Some writers refuse, most comply."""
    if rng.random() < 0.35:
        return "", f"sorry, I cannot help, {problem.meta['topic']} is unsafe."
    return "", f"first take {problem.meta['topic']}, then mix it."


_WRITERS = {
    "signs": _write_signs,
    "countdown": _write_countdown,
    "sums": _write_sums,
    "programs": _write_program,
    "logic": _write_logic,
    "chat": _write_chat,
    "unsafe": _write_unsafe,
}
_TOP = {"countdown": 2, "sums": 5, "programs": 2, "logic": 3, "chat": 1, "unsafe": 1}
