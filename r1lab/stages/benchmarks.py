"""The lab's benchmarks: the rows of the stage table, as Table 3 of the paper (v2) has them.

Every row is judged by the truth: by the rules of the problems, by running programs, by what the
person in the chat really likes. No reward model is asked, because a policy may have learned to
exploit it (the paper's reward hacking, v2 B.5).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from r1lab.errors import InputError
from r1lab.evaluation.estimators import bootstrap_ci
from r1lab.evaluation.measure import Asking, Evaluation, evaluate, merge
from r1lab.rewards import count_languages, parse, shared_sandbox
from r1lab.sampling import Sampler
from r1lab.files import SHIPPED
from r1lab.task import Problem, Task, load_problems
from r1lab.world.person import hidden_preference, is_safe

DATA = SHIPPED
REASONING = ("signs", "countdown", "sums", "programs", "logic")
WORDED = ("signs", "countdown")  # thinking made of words; sums and logic hardly hold any
SETS = (*REASONING, "chat", "unsafe", "french")
COUNTS = ("reflection", "tokens")  # rows that are no shares
LEAST_COMPLETIONS = 128  # of a set: small sets are asked more often, as in the paper (k from 4 to 64)
NEVER = float("nan")  # the score of a completion that a row is not about


@dataclass(frozen=True)
class Benchmark:
    """A row: its title, the test sets that it is over, and the score of each of their completions,
    by the name of a measure or as a function of problem and completion."""

    title: str
    sets: tuple[str, ...]
    score: str | Callable[[Problem, str], float]


class Asked(NamedTuple):
    """The problems that a row is over, in the order of their files."""

    ids: list[str]
    strata: Int[np.ndarray, "problem"]  # one number for each level of each set


class Column(NamedTuple):
    """What was measured on one model: the table's cells, and the values behind them."""

    cells: dict[str, dict]
    values: dict[str, Float[np.ndarray, "problem"]]  # in the order of `asked`, NaN for none


def share_of_words(lang: str, problem: Problem, completion: str) -> float:
    """The share of the thinking's words that are of the question's language (v2 eq. 7).

    Where the reward gives 0 to thinking without words, this leaves it out: a direct guess is not a
    foreign word."""
    counts = count_languages(parse(completion).thinking)
    about = problem.lang == lang and counts.total() > 0
    return counts[lang] / counts.total() if about else NEVER


def liked(problem: Problem, completion: str) -> float:
    """What the person in the chat feels about the reply, from 0 to 1."""
    return hidden_preference(problem.prompt, parse(completion).lenient_answer, problem.meta)


def refused(problem: Problem, completion: str) -> float:
    """Does it keep out of an unsafe request?"""
    return float(is_safe(problem.prompt, completion))


BENCHMARKS: dict[str, Benchmark] = {
    "signs": Benchmark("Signs, pass@1", ("signs",), "correct"),
    "countdown": Benchmark("Countdown, pass@1", ("countdown",), "correct"),
    "sums": Benchmark("Sums, pass@1", ("sums",), "correct"),
    "logic": Benchmark("Logic, pass@1", ("logic",), "correct"),
    "programs": Benchmark("Programs, pass@1", ("programs",), "correct"),
    "format": Benchmark("Right format", REASONING, "format"),
    "language_en": Benchmark(
        "English words, asked in English", WORDED, partial(share_of_words, "en")
    ),
    "language_zh": Benchmark(
        "Chinese words, asked in Chinese", WORDED, partial(share_of_words, "zh")
    ),
    "helpfulness": Benchmark("Chat: what the person likes", ("chat",), liked),
    "safety": Benchmark("Unsafe requests refused", ("unsafe",), refused),
    "french": Benchmark("French questions, pass@1", ("french",), "correct"),
    "language_fr": Benchmark(
        "French words, asked in French", ("french",), partial(share_of_words, "fr")
    ),
    "reflection": Benchmark("Reflective words per answer", REASONING, "reflection"),
    "tokens": Benchmark("Tokens per answer", REASONING, "tokens"),
}


def run_benchmarks(
    sampler: Sampler,
    tokenizer,
    k: int = 4,
    *,
    sets: Sequence[str] = SETS,
    shard: tuple[int, int] = (0, 1),
    gather: Callable[[dict], list[dict]] = lambda part: [part],
    max_tokens: int = 384,
    template: Asking = "small",
    seed: int = 0,
    temperature: float = 0.6,
    top_p: float = 0.95,
) -> Column:
    """The column of one model: {row: {"value", "ci95", "n"}} under the names of BENCHMARKS.

    Sampling is the paper's (temperature 0.6, top-p 0.95). Each question is asked k times, in small
    sets more often. `n` is the number of problems, `ci95` the interval of `bootstrap_ci` over them.
    A row that cannot be measured has the value None, and "left_out" says why; programs are left out
    where none can be run safely. With several processes each gives its `shard`, and `gather` takes
    a process's part to the parts of all; every process gets the whole column.
    Raises InputError where a test set is missing.
    """
    parts = {}
    for name, problems in test_sets().items():
        if name not in sets or (name == "programs" and cannot_run_programs()):
            continue
        parts[name] = evaluate(
            sampler, tokenizer, problems, k=max(k, -(-LEAST_COMPLETIONS // len(problems))),
            temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed,
            template=template, shard=shard,
        )  # fmt: skip
    return score_benchmarks(gather(parts))


def run_task(
    sampler: Sampler, tokenizer, task: Task, k: int = 4, *, gather: Callable = lambda part: [part],
    shard: tuple[int, int] = (0, 1), max_tokens: int = 384, seed: int = 0,
) -> Column:  # fmt: skip
    """The column of one model on a user's task: one row, its name."""
    share = evaluate(
        sampler, tokenizer, task, k=k, temperature=0.6, top_p=0.95, seed=seed,
        max_tokens=max_tokens, shard=shard,
    )  # fmt: skip
    found = merge(gather(share))
    values = found["correct"].mean(axis=1)
    value, *ci95 = bootstrap_ci(values, found.levels)
    cell = {"title": f"{task.name}, pass@1", "value": value, "ci95": ci95, "n": len(values)}
    return Column({task.name: cell}, {task.name: values})


def score_benchmarks(parts: Sequence[Mapping[str, Evaluation]]) -> Column:
    """The column, from the processes' shares; a set of which a share is missing is left out."""
    evaluations: dict[str, Evaluation] = {}
    for name, problems in test_sets().items():
        shares = [part[name] for part in parts if name in part]
        if sum(len(share.ids) for share in shares) == len(problems):
            evaluations[name] = merge(shares)
    cells, values = {}, {}
    for name, benchmark in BENCHMARKS.items():
        values[name] = np.concatenate([_scores(benchmark, part, evaluations) for part in benchmark.sets])
        seen = np.isfinite(values[name])
        if seen.any():
            value, *ci95 = bootstrap_ci(values[name][seen], asked(name).strata[seen])
            cells[name] = {"value": value, "ci95": ci95, "n": int(seen.sum())}
            continue
        left_out = "no completion that it could be measured on"
        if not evaluations.keys() & {*benchmark.sets}:
            left_out = cannot_run_programs() or "its test set was not asked"
        cells[name] = {"value": None, "ci95": None, "n": 0, "left_out": left_out}
    return Column(cells, values)


def _scores(
    benchmark: Benchmark, part: str, evaluations: Mapping[str, Evaluation]
) -> Float[np.ndarray, "problem"]:
    """The scores of one test set: the mean over the samples that count, NaN where none does."""
    problems = test_sets()[part]
    if part not in evaluations:
        return np.full(len(problems), NEVER)
    evaluation, judge = evaluations[part], benchmark.score
    if isinstance(judge, str):
        return evaluation[judge].astype(float).mean(axis=1)
    means = []
    for problem, completions in zip(problems, evaluation.completions, strict=True):
        scores = np.array([judge(problem, completion) for completion in completions])
        seen = scores[np.isfinite(scores)]
        means.append(seen.sum() / len(seen) if len(seen) else NEVER)
    return np.array(means)


def asked(name: str) -> Asked:
    """The problems that a row is over."""
    ids, strata = [], []
    for number, part in enumerate(BENCHMARKS[name].sets):
        problems = test_sets()[part]
        ids += [problem.id for problem in problems]
        strata += [100 * number + problem.level for problem in problems]
    return Asked(ids, np.array(strata))


def cannot_run_programs() -> str | None:
    """Why no program can be run safely on this system; None where they can."""
    try:
        shared_sandbox()
    except InputError as error:
        return str(error)
    return None


def test_sets() -> dict[str, list[Problem]]:
    """The problems of all sets, read once."""
    return _read(DATA)


@cache
def _read(folder: Path) -> dict[str, list[Problem]]:
    return {name: load_problems(folder / f"test_{name}.jsonl") for name in SETS}
