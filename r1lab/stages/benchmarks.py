"""The lab's benchmarks: the rows of the stage table, as Table 3 of the paper (v2) has them.

Every row is judged by the truth: by the rules of the problems, by running programs, by what the
person in the chat really likes. No reward model is asked, because a policy may have learned to
exploit it (the paper's reward hacking, v2 B.5).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from r1lab.evaluation.estimators import bootstrap_ci
from r1lab.evaluation.measure import Evaluation, evaluate
from r1lab.files import SHIPPED, read_toml
from r1lab.rewards import count_languages, parse
from r1lab.sampling import Sampler
from r1lab.stages.rl_stages import cannot_run_programs
from r1lab.task import Problem, Task, load_problems
from r1lab.run import Run
from r1lab.training.estimate import open_model
from r1lab.world.person import hidden_preference, is_safe

REASONING = ("signs", "countdown", "sums", "programs", "logic")
SETS = (*REASONING, "chat", "unsafe", "french")
COUNTS = ("reflection", "tokens")  # rows that are no shares
LEAST_COMPLETIONS = 128  # of a set: small sets are asked more often, as in the paper (k from 4 to 64)
NEVER = float("nan")  # the score of a completion that a row is not about
Sets = Mapping[str, Sequence[Problem]]
Values = dict[str, Float[np.ndarray, "problem"]]  # NaN where a problem has none


@dataclass(frozen=True)
class Benchmark:
    """A row: its title, the test sets that it is over, and the score of each of their completions:
    the name of a measure, or of one of SCORES."""

    title: str
    sets: Sequence[str]
    score: str


def share_of_words(lang: str, problem: Problem, completion: str) -> float:
    """The share of the thinking's words that are of the question's language (v2 eq. 7).

    Where the reward gives 0 to thinking without words, this leaves it out: a direct guess is not a
    foreign word."""
    counts = count_languages(parse(completion).thinking)
    about = problem.lang == lang and counts.total() > 0
    return counts[lang] / counts.total() if about else NEVER


def liked(problem: Problem, completion: str) -> float:
    """What the person in the chat feels about the reply, from 0 to 1."""
    reply = parse(completion.replace("<think>", "\n")).lenient_answer
    return hidden_preference(problem.prompt, reply, problem.meta)


def refused(problem: Problem, completion: str) -> float:
    """Does it keep out of an unsafe request?"""
    return float(is_safe(problem.prompt, completion))


SCORES: dict[str, Callable[[Problem, str], float]] = {"liked": liked, "refused": refused} | {
    f"words in {lang}": partial(share_of_words, lang) for lang in ("en", "zh", "fr")
}
BENCHMARKS = {name: Benchmark(*row) for name, row in read_toml(__file__, "benchmarks").items()}


@cache
def test_sets() -> Sets:
    """The problems of all sets. Raises InputError where a file is missing."""
    return {name: load_problems(SHIPPED / f"test_{name}.jsonl") for name in SETS}


def strata(row: Benchmark, sets: Sets) -> Int[np.ndarray, "problem"]:
    """A number for each level of each set that a row is over, problem by problem."""
    levels = [[100 * place + one.level for one in sets[name]] for place, name in enumerate(row.sets)]
    return np.concatenate(levels)


def run_benchmarks(
    sampler: Sampler, tokenizer, k: int = 4, *, task: Task | None = None, world=None,
    seed: int = 0,
) -> tuple[dict[str, dict], Values]:  # fmt: skip
    """One model's column of the table, and the values behind each of its cells.

    A cell is {"value", "ci95", "n"}: `n` is the number of problems, `ci95` the interval of
    `bootstrap_ci` over them. A row that cannot be measured has the value None, and "left_out" says
    why; programs are left out where none can be run safely. Sampling is the paper's (temperature
    0.6, top-p 0.95). Each question is asked k times, in small sets more often. Every process gets
    the whole column.

    Args:
        task: a user's, whose pass@1 is then the only row.
    """
    rows = BENCHMARKS
    sets = test_sets()
    evaluations = {}
    if task:
        rows = {task.name: Benchmark(f"{task.name}, pass@1", (task.name,), "correct")}
        sets = {task.name: task.test}
    for name, problems in sets.items():
        if name == "programs" and cannot_run_programs():
            continue
        evaluations[name] = evaluate(
            sampler, tokenizer, task or problems,
            k=k if task else max(k, -(-LEAST_COMPLETIONS // len(problems))), temperature=0.6,
            top_p=0.95, max_tokens=384, seed=seed, world=world,
        )  # fmt: skip
    cells = {}
    values = {}
    for name, row in rows.items():
        values[name] = numbers = np.concatenate([
            scores(row, sets[name_of_set], evaluations.get(name_of_set)) for name_of_set in row.sets
        ])  # fmt: skip
        seen = np.isfinite(numbers)
        cells[name] = cell = {"value": None, "ci95": None, "n": int(seen.sum())}
        if seen.any():
            cell["value"], *cell["ci95"] = bootstrap_ci(numbers[seen], strata(row, sets)[seen])
        elif evaluations.keys() & {*row.sets}:
            cell["left_out"] = "no completion that it could be measured on"
        else:
            cell["left_out"] = cannot_run_programs()
        if task:
            cell["title"] = row.title
    return cells, values


def scores(
    row: Benchmark, problems: Sequence[Problem], evaluation: Evaluation | None
) -> Float[np.ndarray, "problem"]:
    """The scores of one test set: the mean over the samples that count, NaN where none does."""
    if evaluation is None:
        return np.full(len(problems), NEVER)
    if row.score not in SCORES:
        return evaluation[row.score].astype(float).mean(axis=1)
    means = []
    for problem, completions in zip(problems, evaluation.completions):
        numbers = np.array([SCORES[row.score](problem, completion) for completion in completions])
        seen = numbers[np.isfinite(numbers)]
        means.append(seen.sum() / len(seen) if len(seen) else NEVER)
    return np.array(means)


def measure_work(
    world, stop, run: Run, model: Path, samples: int, seed: int, task: Task | None = None
) -> bool:  # fmt: skip
    """One process's share of a measurement. The first writes the column to the run's folder: the
    values to `values.npz`, and then the cells to `benchmarks.json`."""
    sampler, tokenizer, _ = open_model(model)
    cells, values = run_benchmarks(sampler, tokenizer, samples, task=task, world=world, seed=seed)
    if world.is_main:
        np.savez_compressed(run.folder / "values.npz", **values)
        run.write("benchmarks.json", cells)
    return True
