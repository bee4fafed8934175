"""The lab's benchmarks: the rows of the stage table, as Table 3 of the paper (v2) has them.

Every row is judged by the truth: by the rules of the problems, by running programs, by what the
person in the chat really likes. No reward model is asked, because a policy may have learned to
please it (the paper's reward hacking, v2 B.5).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from r1lab.errors import InputError
from r1lab.evaluation.estimators import bootstrap_ci
from r1lab.evaluation.measure import Asking, Evaluation, evaluate, merge
from r1lab.rewards import count_languages, parse, shared_sandbox
from r1lab.sampling import Sampler
from r1lab.task import Problem, Task, load_problems
from r1lab.world.person import hidden_preference, is_safe

DATA = Path("data")
REASONING = ("signs", "countdown", "sums", "programs", "logic")
WORDED = ("signs", "countdown")  # thinking made of words; sums and logic hardly hold any
LEAST_COMPLETIONS = 128  # of a set: small sets are asked more often, as in the paper (k from 4 to 64)
NEVER = float("nan")  # the score of a completion that a row is not about
Score = Callable[[Sequence[Problem], Evaluation], Num[np.ndarray, "problem sample"]]


@dataclass(frozen=True)
class Benchmark:
    """A row: its title, the test sets that it is over, and the score of each of their completions."""

    title: str
    sets: tuple[str, ...]
    score: Score


@dataclass(frozen=True)
class Values:
    """A row problem by problem: the mean over the samples that count, NaN where none does."""

    ids: list[str]
    strata: Int[np.ndarray, "problem"]  # one number for each level of each set
    values: Float[np.ndarray, "problem"]


def _measured(name: str) -> Score:
    return lambda problems, evaluation: evaluation[name].astype(float)


def _judged(judge: Callable[[Problem, str], float]) -> Score:
    return lambda problems, evaluation: np.array(
        [
            [judge(problem, completion) for completion in completions]
            for problem, completions in zip(problems, evaluation.completions, strict=True)
        ],
        dtype=float,
    )


def _kept_to(lang: str) -> Score:
    """The share of the thinking's words that are of the question's language (v2 eq. 7).

    Where the reward gives 0 to thinking without words, this leaves it out: a direct guess is not a
    foreign word."""

    def share(problem: Problem, completion: str) -> float:
        counts = count_languages(parse(completion).thinking)
        about = problem.lang == lang and counts.total() > 0
        return counts[lang] / counts.total() if about else NEVER

    return _judged(share)


def _liked(problem: Problem, completion: str) -> float:
    return hidden_preference(problem.prompt, parse(completion).lenient_answer, problem.meta)


def _refused(problem: Problem, completion: str) -> float:
    return float(is_safe(problem.prompt, completion))


BENCHMARKS: dict[str, Benchmark] = {
    "signs": Benchmark("Signs, pass@1", ("signs",), _measured("correct")),
    "countdown": Benchmark("Countdown, pass@1", ("countdown",), _measured("correct")),
    "sums": Benchmark("Sums, pass@1", ("sums",), _measured("correct")),
    "logic": Benchmark("Logic, pass@1", ("logic",), _measured("correct")),
    "programs": Benchmark("Programs, pass@1", ("programs",), _measured("correct")),
    "format": Benchmark("Right format", REASONING, _measured("format")),
    "language_en": Benchmark("English words, asked in English", WORDED, _kept_to("en")),
    "language_zh": Benchmark("Chinese words, asked in Chinese", WORDED, _kept_to("zh")),
    "helpfulness": Benchmark("Chat: what the person likes", ("chat",), _judged(_liked)),
    "safety": Benchmark("Unsafe requests refused", ("unsafe",), _judged(_refused)),
    "french": Benchmark("French questions, pass@1", ("french",), _measured("correct")),
    "language_fr": Benchmark("French words, asked in French", ("french",), _kept_to("fr")),
    "reflection": Benchmark("Reflective words per answer", REASONING, _measured("reflection")),
    "tokens": Benchmark("Tokens per answer", REASONING, _measured("tokens")),
}
SETS = (*REASONING, "chat", "unsafe", "french")


class Column(NamedTuple):
    """What was measured on one model: the table's cells, and the values behind them."""

    cells: dict[str, dict]
    values: dict[str, Float[np.ndarray, "problem"]]  # in the order of `asked`


def run_benchmarks(
    sampler: Sampler,
    tokenizer,
    k: int = 4,
    *,
    gather: Callable[[dict], list[dict]] = lambda part: [part],
    **options,
) -> Column:
    """The column of one model: {row: {"value", "ci95", "n"}} under the names of BENCHMARKS.

    `n` is the number of problems, `ci95` the interval of `bootstrap_ci` over them. A row that
    cannot be measured has the value None, and "left_out" says why. With several processes each
    gives its `shard`, and `gather` takes a process's part to the parts of all; every process gets
    the whole column. The other options are those of `sample_benchmarks`.
    """
    evaluations = merge_benchmarks(gather(sample_benchmarks(sampler, tokenizer, k, **options)))
    return Column(score_benchmarks(evaluations), every_value(evaluations))


def run_task(
    sampler: Sampler, tokenizer, task: Task, k: int = 4, *, gather: Callable = lambda part: [part],
    shard: tuple[int, int] = (0, 1), max_tokens: int = 384, seed: int = 0,
) -> Column:  # fmt: skip
    """The column of one model on a user's task: one row, its name."""
    share = evaluate(
        sampler, tokenizer, list(task.test), k=k, temperature=0.6, top_p=0.95, seed=seed,
        max_tokens=max_tokens, template=task.template, shard=shard, check=task.check,
    )  # fmt: skip
    found = merge(gather(share))
    values = found["correct"].mean(axis=1)
    value, *ci95 = bootstrap_ci(values, found.levels)
    cell = {"title": f"{task.name}, pass@1", "value": value, "ci95": ci95, "n": len(values)}
    return Column({task.name: cell}, {task.name: values})


def sample_benchmarks(
    sampler: Sampler,
    tokenizer,
    k: int = 4,
    *,
    sets: Sequence[str] = SETS,
    shard: tuple[int, int] = (0, 1),
    max_tokens: int = 384,
    template: Asking = "small",
    seed: int = 0,
    temperature: float = 0.6,
    top_p: float = 0.95,
) -> dict[str, Evaluation]:
    """This process's share of the answers to the test sets, by the set's name.

    Sampling is the paper's (temperature 0.6, top-p 0.95). Each question is asked k times, in small
    sets more often. Programs are left out where none can be run safely. Raises InputError where a
    test set is missing.
    """
    process, processes = shard
    parts = {}
    for name, problems in _test_sets().items():
        many = len(problems) >= processes  # of fewer problems the first process takes all
        mine = name in sets and (many or process == 0)
        if not mine or (name == "programs" and cannot_run_programs()):
            continue
        parts[name] = evaluate(
            sampler, tokenizer, problems, k=max(k, -(-LEAST_COMPLETIONS // len(problems))),
            temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed,
            template=template, shard=shard if many else (0, 1),
        )  # fmt: skip
    return parts


def merge_benchmarks(parts: Sequence[Mapping[str, Evaluation]]) -> dict[str, Evaluation]:
    """Join the processes' shares; a set of which a share is missing is left out."""
    merged = {}
    for name, problems in _test_sets().items():
        shares = [part[name] for part in parts if name in part]
        if sum(len(share.ids) for share in shares) == len(problems):
            merged[name] = merge(shares)
    return merged


def score_benchmarks(evaluations: Mapping[str, Evaluation]) -> dict[str, dict]:
    """{row: {"value", "ci95", "n"}}; see `run_benchmarks`."""
    rows = {}
    for name in BENCHMARKS:
        row = benchmark_values(name, evaluations)
        seen = np.isfinite(row.values)
        if seen.any():
            value, *ci95 = bootstrap_ci(row.values[seen], row.strata[seen])
            rows[name] = {"value": value, "ci95": ci95, "n": int(seen.sum())}
        else:
            left_out = "no completion that it could be measured on"
            if not row.ids:
                left_out = cannot_run_programs() or "its test set was not asked"
            rows[name] = {"value": None, "ci95": None, "n": 0, "left_out": left_out}
    return rows


def benchmark_values(name: str, evaluations: Mapping[str, Evaluation]) -> Values:
    """A row problem by problem, over those of its sets that were evaluated."""
    benchmark, problems = BENCHMARKS[name], _test_sets()
    ids, strata, values = [], [np.array([], dtype=int)], [np.array([])]
    for number, part in enumerate(benchmark.sets):
        if part in evaluations:
            evaluation = evaluations[part]
            by_id = {problem.id: problem for problem in problems[part]}
            scores = benchmark.score([by_id[one] for one in evaluation.ids], evaluation)
            ids += evaluation.ids
            strata.append(number * 100 + evaluation.levels)
            values.append(_mean_of_seen(scores))
    return Values(ids, np.concatenate(strata), np.concatenate(values))


def every_value(evaluations: Mapping[str, Evaluation]) -> dict[str, Float[np.ndarray, "problem"]]:
    """Each row over all problems of its sets, NaN where a problem has no value."""
    rows = {}
    for name in BENCHMARKS:
        known = benchmark_values(name, evaluations)
        by_id = dict(zip(known.ids, known.values, strict=True))
        rows[name] = np.array([by_id.get(one, NEVER) for one in asked(name).ids])
    return rows


def asked(name: str) -> Values:
    """The problems that a row is over, in the order of their files; no value yet."""
    problems, sets = _test_sets(), BENCHMARKS[name].sets
    ids = [problem.id for part in sets for problem in problems[part]]
    strata = [100 * n + p.level for n, part in enumerate(sets) for p in problems[part]]
    return Values(ids, np.array(strata), np.full(len(ids), NEVER))


def cannot_run_programs() -> str | None:
    """Why no program can be run safely on this system; None where they can."""
    try:
        shared_sandbox()
    except InputError as error:
        return str(error)
    return None


def _test_sets() -> dict[str, list[Problem]]:
    return {name: load_problems(DATA / f"test_{name}.jsonl") for name in SETS}


def _mean_of_seen(scores: Float[np.ndarray, "problem sample"]) -> Float[np.ndarray, "problem"]:
    seen = np.isfinite(scores)
    total, count = np.where(seen, scores, 0.0).sum(axis=1), seen.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), NEVER)
