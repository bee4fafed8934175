"""How good is a policy? `measure` reads completions, `evaluate` samples them first.

Training metrics, held-out evaluations, stage tables, suites and lessons all come through here.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r1lab.errors import InputError
from r1lab.evaluation import estimators
from r1lab.evaluation.estimators import Counts, PerProblem, PerSample
from r1lab.evaluation.table import summary_table
from r1lab.files import whole
from r1lab.rewards import correct, count_languages, parse, program_of, submit
from r1lab.rewards.guard import equivalent, value
from r1lab.rewards.parsing import plain, value_in, with_opening
from r1lab.rewards.rules import leniently
from r1lab.sampling import Sampler, SamplingParams
from r1lab.sources.templates import prompt_of
from r1lab.task import Check, Problem, Task, checker

# One number for each completion. `answer` numbers a problem's distinct answers, for the vote.
MEASURES = (
    *("correct", "strict", "format", "answer", "tokens", "truncated", "reflection", "mixed"),
    *("attempts", "repeats", "searches", "in_order"),
)
MEANS = {  # in a summary: its name, and the measure that is averaged
    "mean_tokens": "tokens", "reflection_per_answer": "reflection", "format": "format",
    "mixing": "mixed", "truncated": "truncated",
}  # fmt: skip
# The ten words that the paper counts (v2 C.2, merged from three experts' lists), and those of the
# small world in French and Chinese. A Latin word counts where it is whole, a Han word wherever it is,
# since Chinese puts no spaces between words.
REFLECTIVE_WORDS = frozenset(
    "wait mistake however but retry error verify wrong evaluate check "
    "attends mais pourtant encore 等 但 然 再".split()
)
_LETTER = "[a-z\u00df-\u00f6\u00f8-\u024f]"
_REFLECTIVE = re.compile(
    "|".join(rf"(?<!{_LETTER}){word}(?!{_LETTER})" if word.isascii() else word for word in REFLECTIVE_WORDS)
)
FindAttempts = Callable[[Problem, str], Sequence]


@dataclass(frozen=True)
class Evaluation:
    """All measures of all samples: `evaluation["tokens"]` is an array [problem, sample].

    `index` is each problem's place in the whole set, so that parts made by several processes can be
    merged in order; `completions` holds the texts, problem by problem.
    """

    index: Counts
    levels: Counts
    ids: list[str]
    completions: list[list[str]]
    measures: dict[str, PerSample]

    def __getitem__(self, measure: str) -> PerSample:
        return self.measures[measure]

    def accuracies(self) -> dict[str, PerProblem]:
        """Return pass@1 (lenient and strict), cons@k and pass@k (lenient) of each problem, by name."""
        right = self["correct"]
        k = right.shape[1]
        of_one = right.mean(axis=1)
        return {
            "pass_at_1": of_one,
            "pass_at_1_strict": self["strict"].mean(axis=1),
            f"cons_at_{k}": estimators.cons_at_k(self["answer"], right),
            f"pass_at_{k}": estimators.pass_at_k(k, (right >= 1).sum(axis=1), k) if k > 1 else of_one,
        }

    def rows(self, rows: list[int]) -> "Evaluation":
        """Keep the problems in these rows, in this order."""
        return Evaluation(
            index=self.index[rows],
            levels=self.levels[rows],
            ids=[self.ids[row] for row in rows],
            completions=[self.completions[row] for row in rows],
            measures={name: values[rows] for name, values in self.measures.items()},
        )

    def summary(self) -> dict:
        """Make the block of `summary.json`: means over levels, accuracies with 95 % intervals.

        `repeats` is a share of attempts and `in_order` of the completions with two attempts or
        more, over the whole set; None where there are none.
        """
        block: dict = {}
        for name, values in self.accuracies().items():
            block[name], *block[f"{name}_ci95"] = estimators.bootstrap_ci(values, self.levels)
        for name, measure in MEANS.items():
            block[name] = estimators.macro_mean(self[measure].mean(axis=1), self.levels)
        for name, among in (("repeats", "attempts"), ("in_order", "searches")):
            count = self[among].sum()
            block[name] = float(self[name].sum() / count) if count else None
        block["by_level"] = {}
        for level in np.unique(self.levels):
            rows = self.levels == level
            right = self["correct"][rows].mean(axis=1)
            mean, *ci95 = estimators.bootstrap_ci(right, self.levels[rows])
            block["by_level"][str(level)] = {"n": len(right), "pass_at_1": mean, "ci95": ci95}
        return block

    def _repr_html_(self):
        return summary_table({"value": self.summary()})._repr_html_()

    def save(self, path: str | Path):
        """Write everything to one .npz, whole or not at all."""
        texts = json.dumps([self.ids, self.completions], ensure_ascii=False).encode()
        with whole(Path(path)) as partial, open(partial, "wb") as file:
            np.savez_compressed(
                file, index=self.index, levels=self.levels, texts=np.frombuffer(texts, np.uint8),
                **self.measures,
            )  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> "Evaluation":
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            ids, completions = json.loads(arrays["texts"].tobytes())
            measures = {name: arrays[name] for name in MEASURES}
            return cls(arrays["index"], arrays["levels"], ids, completions, measures)


def evaluate(
    sampler: Sampler,
    tokenizer,
    task: Task | Sequence[Problem],
    *,
    k: int = 16,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_tokens: int,
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
    world=None,
    **asked,
) -> Evaluation:
    """Sample k completions for each problem and measure them, as `measure` does.

    A task brings its test problems, its template, its check and its way to find attempts. For
    problems alone, `asked` may give the last three; the template is "small" by default.
    The paper evaluates at temperature 0.6 and top-p 0.95, with k from 4 to 64 by benchmark; the
    default here is the sampling of training, so that curves and rollouts show the same policy.
    `shard` = (part, parts): this call takes its share of the problems; `merge` joins the shares. Of
    the processes of a `world`, each takes a share and returns the whole. A problem's random stream
    is its place in `problems`, so that the number of processes does not change what is drawn.
    Raises InputError where k is below 1, or there are no problems, or no safe way to run programs.
    """
    if not isinstance(task, Task):
        task = Task("problems", (), task, {}, **{"template": "small"} | asked)
    if not task.test:
        raise InputError("an evaluation needs at least one problem; there is none.")
    params = SamplingParams(k, temperature, top_p, max_tokens=max_tokens, seed=seed)
    part, parts = (world.rank, world.size) if world else shard
    index = range(len(task.test))[part::parts]
    problems = task.test[part::parts]
    prompts = [prompt_of(task, problem, tokenizer) for problem in problems]
    rollouts = sampler.generate([tokenizer(prompt).input_ids for prompt in prompts], params, index)
    texts = rollouts.texts(tokenizer)
    repeated = [[one for one in each for _ in range(k)] for each in (problems, prompts)]
    rows = measure(repeated[0], texts, repeated[1], check=task.check, attempts=task.attempts)
    for row, ids, finish in zip(rows, rollouts.completion_ids, rollouts.finish):
        row |= {"tokens": len(ids), "truncated": finish == "length"}
    for place, problem in enumerate(problems):
        _number_answers(rows[place * k : (place + 1) * k], None if task.check else problem)
    evaluation = Evaluation(
        index=np.array(index, dtype=int),
        levels=np.array([problem.level for problem in problems], dtype=int),
        ids=[problem.id for problem in problems],
        completions=[texts[start : start + k] for start in range(0, len(texts), k)],
        measures={name: _column(rows, name).reshape(-1, k) for name in MEASURES},
    )
    return merge(world.gather(evaluation)) if world else evaluation


def merge(parts: Sequence[Evaluation]) -> Evaluation:
    """Join evaluations of disjoint parts of one set of problems, in the set's order."""

    def joined(name):
        return [one for part in parts for one in getattr(part, name)]

    together = Evaluation(
        np.array(joined("index")), np.array(joined("levels")), joined("ids"), joined("completions"),
        {name: np.concatenate([part[name] for part in parts]) for name in MEASURES},
    )
    return together.rows(np.argsort(together.index).tolist())


def measure(
    problems: Sequence[Problem],
    completions: Sequence[str],
    prompts: Sequence[str] | None = None,
    *,
    check: Check | None = None,
    attempts: FindAttempts | None = None,
) -> list[dict]:
    """Read what the completions' texts show, one row each, under the names of MEASURES.

    `problems` has one entry for each completion, and so have the `prompts` that were really sent: what
    they have opened is read, and shown to `check`, as the completion's beginning. `check` says how right a completion is, in place
    of the two readings of the accuracy reward (lenient for `correct`, strict for `strict`); None
    from it counts as wrong. `attempts` finds the tries in a completion: equal keys (`key`) are the
    same try, and `place` is (length, number) in a fixed order of all tries, None without an order.
    `answer` is the lenient reading's, None where there is none. `reflection` counts
    the reflective words of the thinking (v2 C.2, Fig. 9), and `mixed` says whether it uses words of
    more than one language. Programs all start at once and run beside the rest.
    Raises InputError where there are programs and no way to run them safely.
    """
    completions = list(map(with_opening, completions, prompts or [""] * len(completions)))
    running = [None] * len(problems)
    if check is None:
        asked = prompts or [problem.prompt for problem in problems]
        running = submit(asked, completions, [problem.tests for problem in problems], lenient=True)
    rows = []
    for problem, completion, outcome in zip(problems, completions, running):
        parsed = parse(completion)
        right, strictly_right = _grades(problem, completion, outcome, check)
        rows.append({
            "correct": right,
            "strict": strictly_right,
            "format": parsed.well_formed,
            "answer": leniently(completion, problem.family, problem.meta).lenient_answer or None,
            "reflection": len(_REFLECTIVE.findall(parsed.thinking.lower())),
            "mixed": len(count_languages(parsed.thinking)) > 1,
            **_tried(attempts(problem, completion) if attempts else []),
        })  # fmt: skip
    return rows


def _grades(problem, completion, outcome, check):
    """Say how right the answer is, in the lenient and in the strict reading."""
    if check is not None:
        value = check(completion, problem) or False
        return value, value
    if outcome is not None:  # the strict reading finds the same program, or none
        passed = outcome.result().verdict == "ok"
        return passed, passed and program_of(completion, prompt=problem.prompt) is not None
    gold = (problem.solution, problem.family, problem.meta)
    return tuple(
        correct(completion, *gold, lenient=lenient, question=problem.prompt) is True
        for lenient in (True, False)
    )


def _tried(attempts):
    """Count the tries and those made before, and say whether each is the next in order."""
    places = [attempt.place for attempt in attempts]
    search = len(attempts) > 1 and None not in places
    pairs = zip(places, places[1:]) if search else []
    return {
        "attempts": len(attempts),
        "repeats": len(attempts) - len({attempt.key for attempt in attempts}),
        "searches": search,
        "in_order": search and all(after == (size, n + 1) for (size, n), after in pairs),
    }


def _number_answers(rows, problem):
    """Replace each answer by its number among the different answers to its problem. None: a check of
    the task's own judges them, so that only their spelling is compared."""
    numbers = {None: estimators.UNANSWERED}
    for row in rows:
        vote = row["answer"] and _vote(problem, row["answer"], tuple(numbers)[1:])
        row["answer"] = numbers.setdefault(vote, len(numbers) - 1)


def _vote(problem, answer, others):
    """Name what an answer votes for: its number where the solution is one, else one of the others that
    has its value; its spelling, without spaces and case, where the family's own rules judge it."""
    spelled = "".join(answer.split()).casefold()
    if not problem or problem.tests or not problem.solution or checker(problem.family):
        return spelled
    if value(problem.solution, problem.prompt) is None:
        return next((one for one in others if equivalent(one, answer, problem.prompt)), answer)
    number = value(value_in(plain(answer), alone=True) or answer, problem.prompt)
    return spelled if number is None else str(number)


def _column(rows, name):
    """Make an array of whole numbers, unless a check gives fractions."""
    values = np.array([float(row[name]) for row in rows])
    return values if (values % 1).any() else values.astype(int)
