"""Rewards put together with weights, their validation, and the control that pays a coin."""

import hashlib
import inspect
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from r1lab.errors import InputError, reason
from r1lab.rewards.languages import THOUGHTS
from r1lab.rewards.parsing import text_of
from r1lab.task import Check, Problem, Reward, Rewards, Scores, columns_of, gold_answer


class TrainerState(dict):
    """What TRL's rewards read as `trainer_state`: the step is known, all else is None."""

    __getattr__ = dict.get


class RewardSet:
    """Named, weighted rewards: `rewards` maps a name to (function, weight)."""

    def __init__(self, rewards: Rewards):
        """Take each reward as a function, or as (function, weight).

        Each function has TRL's signature `f(prompts, completions, **columns) -> Scores`; TRL's own
        will do. A part of weight 0 is logged and counts for nothing.
        Raises InputError for a reward that is an `async def`."""
        self.rewards = {
            name: reward if isinstance(reward, tuple) else (reward, 1.0)
            for name, reward in rewards.items()
        }
        for name, (function, _) in self.rewards.items():
            if inspect.iscoroutinefunction(function):
                raise InputError(f"the reward {name!r} is an `async def`; make it a plain function.")

    def __call__(
        self, prompts: list, completions: list, **columns: object
    ) -> tuple[Scores, dict[str, Scores]]:
        """Return (total of each row, each part by name).

        None means "cannot be scored": such a part adds nothing to the row's total, and a row with
        no weighted part left has the total None, which the trainer gives no advantage.
        What TRL hands to rewards beside the columns is there: `completion_ids` (where the caller
        gives none, the text's bytes), `trainer_state`, `log_extra` and `log_metric`; and `step`,
        `rollout` and `seed` (where the caller gives none, 0).

        Raises InputError, naming the reward, if one fails, returns the wrong number of scores, or
        something that is not a finite number."""
        given = {
            "completion_ids": [list(text_of(completion).encode()) for completion in completions],
            **dict.fromkeys(("step", "rollout", "seed"), [0] * len(completions)),
            "trainer_state": TrainerState(global_step=(columns.get("step") or [0])[0]),
            "log_extra": _ignore,
            "log_metric": _ignore,
        }
        parts = {
            name: _scores(name, function, prompts, completions, given | columns)
            for name, (function, _) in self.rewards.items()
        }
        totals = []
        for row in range(len(completions)):
            scored = [
                weight * parts[name][row]
                for name, (_, weight) in self.rewards.items()
                if weight and parts[name][row] is not None
            ]
            totals.append(sum(scored) if scored else None)
        return totals, parts


def _ignore(*arguments):
    """Log nothing: what rewards log besides their scores has no place here."""


def _scores(name, function, prompts, completions, columns):
    if str(getattr(function, "__module__", "")).startswith("trl."):  # these read messages, not text
        completions = [[{"role": "assistant", "content": text_of(c)}] for c in completions]
    try:
        scores = list(function(prompts=prompts, completions=completions, **columns))
        scores = [None if score is None else float(score) for score in scores]
    except Exception as error:
        why = str(error) if isinstance(error, InputError) else reason(error)
        raise InputError(f"the reward {name!r} failed: {why.removesuffix('.')}.") from error
    if len(scores) != len(completions):
        raise InputError(
            f"the reward {name!r} returned {len(scores)} scores for {len(completions)} completions;"
            " it must return one for each."
        )
    if not all(score is None or math.isfinite(score) for score in scores):
        raise InputError(f"the reward {name!r} returned a score that is not a finite number.")
    return scores


def random(prompts: list, completions: list, **columns: object) -> Scores:
    """Toss a fair coin, as a control: the same in every process and after a resume.

    Keyed by seed and rollout (columns of these names, where the trainer gives them), prompt,
    completion, and how many equal completions of the prompt came before: equal samples do not share
    their luck."""
    zeros = [0] * len(completions)
    rollouts, seeds = columns.get("rollout") or zeros, columns.get("seed") or zeros
    seen, scores = Counter(), []
    for row in zip(seeds, rollouts, map(text_of, prompts), map(text_of, completions), strict=True):
        key = repr((*row, seen[row])).encode("utf-8", "backslashreplace")
        seen[row] += 1
        scores.append(float(hashlib.sha256(key).digest()[0] % 2))
    return scores


random.blind = True  # to the answer: nothing to validate


def judges_answers(reward: Reward, columns: Mapping[str, list]) -> bool:
    """Say whether a reward can be asked about a gold answer: the package's own, and any that names a column."""
    ours = str(getattr(reward, "__module__", "")).startswith("r1lab.")
    named = columns.keys() & inspect.signature(reward).parameters.keys()
    return not hasattr(reward, "blind") and (ours or bool(named))


def validate(rewards: RewardSet, problems: list[Problem], check: Check | None = None):
    """Check that each reward, and the task's check, accepts each problem's gold answer, in the right
    format and language.

    The thinking is a word of the problem's language or, where no such word is known, the question.
    Problems without a gold answer are left out, and so are rewards that judge no answers: those with
    the attribute `blind`, and a user's own that name no column of the problems. Raises InputError
    naming reward and problem."""
    problems = [replace(problem, solution=gold_answer(problem)) for problem in problems]
    problems = [problem for problem in problems if problem.solution]
    if not problems:
        return
    completions = [
        f"<think> {THOUGHTS.get(p.lang, p.prompt)} </think> <answer> {p.solution} </answer>"
        for p in problems
    ]
    columns = columns_of(problems)
    judges = {name: one for name, one in rewards.rewards.items() if judges_answers(one[0], columns)}
    _, parts = RewardSet(judges)([p.prompt for p in problems], completions, **columns)
    judged = {f"reward {name!r}": scores for name, scores in parts.items()}
    if check:
        judged["check"] = [check(*row) for row in zip(completions, problems, strict=True)]
    for name, scores in judged.items():
        for problem, score in zip(problems, scores, strict=True):
            if not score or score <= 0:
                raise InputError(
                    f"the {name} does not accept the gold answer of problem {problem.id}: it scores "
                    f"{problem.solution!r} with {score}; fix the answer or the {name}, or give a "
                    "function that judges no answers the attribute `blind`."
                )
