"""Rewards put together with weights, their validation, and the control arms."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from r1lab.errors import InputError
from r1lab.rewards.accuracy import text_of
from r1lab.rewards.code import accuracy_or_code
from r1lab.rewards.format import format_reward
from r1lab.rewards.language import language_consistency
from r1lab.task import Problem
from r1lab.world.words import OK


@dataclass(frozen=True)
class RewardSet:
    """Named, weighted rewards: `rewards` maps a name to (function, weight).

    Each function has TRL's signature `f(prompts, completions, **columns) -> list[float | None]`;
    TRL's own will do. A part of weight 0 is logged and counts for nothing."""

    rewards: dict[str, tuple[Callable, float]]

    @classmethod
    def of(cls, rewards: Mapping[str, Callable | tuple[Callable, float]]) -> "RewardSet":
        """A task's rewards; one without a weight counts with 1. A RewardSet is taken as it is."""
        if isinstance(rewards, cls):
            return rewards
        pairs = {
            name: reward if isinstance(reward, tuple) else (reward, 1.0)
            for name, reward in rewards.items()
        }
        return cls(pairs)

    def __call__(
        self, prompts: list, completions: list, **columns: object
    ) -> tuple[list[float | None], dict[str, list[float | None]]]:
        """(total of each row, each part by name).

        None means "cannot be scored": such a part adds nothing to the row's total, and a row with
        no weighted part left has the total None, which the trainer gives no advantage.

        Raises InputError, naming the reward, if one fails, returns the wrong number of scores, or
        something that is not a finite number."""
        parts = {
            name: _scores(name, function, prompts, completions, columns)
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


def _scores(
    name: str, function: Callable, prompts: list, completions: list, columns: dict[str, list]
) -> list[float | None]:
    if getattr(function, "__module__", "").startswith("trl."):  # these read messages, not text
        completions = [[{"role": "assistant", "content": text_of(c)}] for c in completions]
    try:
        scores = list(function(prompts=prompts, completions=completions, **columns))
        scores = [None if score is None else float(score) for score in scores]
    except Exception as error:
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        why = str(error).removesuffix(".")
        raise InputError(f"the reward {name!r} failed: {kind}{why}.") from error
    if len(scores) != len(completions):
        raise InputError(
            f"the reward {name!r} returned {len(scores)} scores for {len(completions)} completions;"
            " it must return one for each."
        )
    if not all(score is None or math.isfinite(score) for score in scores):
        raise InputError(f"the reward {name!r} returned a score that is not a finite number.")
    return scores


def random_reward(seed: int = 0) -> Callable:
    """A control: a fair coin, the same in every process and after a resume.

    Keyed by seed and rollout (columns of these names, where the trainer gives them), prompt, completion, and how
    many equal completions of the prompt came before: equal samples do not share their luck."""

    def coin(prompts: list, completions: list, **columns: object) -> list[float | None]:
        rollouts = columns.get("rollout") or [0] * len(completions)
        seeds = columns.get("seed") or [seed] * len(completions)
        seen, scores = Counter(), []
        rows = zip(seeds, rollouts, prompts, completions, strict=True)
        for own_seed, rollout, prompt, completion in rows:
            row = (own_seed, rollout, text_of(prompt), text_of(completion))
            key = repr((*row, seen[row])).encode("utf-8", "backslashreplace")
            seen[row] += 1
            scores.append(float(hashlib.sha256(key).digest()[0] % 2))
        return scores

    coin.__name__ = "random_reward"
    coin.blind = True  # to the answer: nothing to validate
    return coin


def reward_set(
    arm: str = "true",
    accuracy_weight: float = 1.0,
    format_weight: float = 1.0,
    seed: int = 0,
    language_weight: float | None = None,
) -> RewardSet:
    """The rewards of R1-Zero (`true`) and of its control arms: a coin, or the format alone.

    The paper adds accuracy and format with the same weight. The control arms log both as well.
    `language_weight` adds language consistency, in every arm (0: only logged), as R1's reasoning
    stage does; the paper adds it to the others directly (v2 section 3.2.1)."""
    weights = {
        "true": (0.0, accuracy_weight, format_weight),
        "random": (1.0, 0.0, 0.0),
        "format": (0.0, 0.0, 1.0),
    }
    if arm not in weights:
        raise InputError(f"there is no arm {arm!r}; choose one of {', '.join(weights)}.")
    coin, *rules = weights[arm]
    named = {"accuracy": (accuracy_or_code, rules[0]), "format": (format_reward, rules[1])}
    if language_weight is not None:
        named["language"] = (language_consistency, language_weight)
    return RewardSet({"random": (random_reward(seed), coin)} | named if coin else named)


def with_preferences(
    rules: RewardSet, preferences: dict[str, Callable], weight: float, first_rollout: int
) -> RewardSet:
    """The rule rewards and, from a rollout on, what reward models prefer (v2 section 3.2.3).

    The paper adds them in the last 400 of 1,700 steps only, because more of them hacks the models.
    """
    late = {name: (later(function, first_rollout), weight) for name, function in preferences.items()}
    return RewardSet(rules.rewards | late)


def later(function: Callable, first_rollout: int) -> Callable:
    """The reward, which cannot score before a rollout (column `rollout`; without one it scores)."""

    def scores(prompts: list, completions: list, **columns: object) -> list[float | None]:
        rollouts = columns.get("rollout") or [first_rollout]
        if rollouts[0] < first_rollout:
            return [None] * len(completions)
        return function(prompts=prompts, completions=completions, **columns)

    scores.__name__ = getattr(function, "__name__", "reward")
    scores.blind = True  # it has an opinion, not a gold answer
    return scores


def validate(rewards: RewardSet, problems: list[Problem], check=None) -> None:
    """Does each reward accept each problem's gold answer, in the right format and language?

    The thinking is a word of the problem's language or, beyond the small world, the question.
    Problems without a gold answer are passed over. Raises InputError naming reward and problem."""
    problems = [problem for problem in problems if problem.solution]
    reading = RewardSet(
        {name: pair for name, pair in rewards.rewards.items() if not hasattr(pair[0], "blind")}
    )
    _, parts = reading(
        prompts=[problem.prompt for problem in problems],
        completions=[
            f"<think> {OK.get(p.lang, p.prompt)} </think> <answer> {p.solution} </answer>"
            for p in problems
        ],
        **{
            name: [getattr(problem, name) for problem in problems]
            for name in ("solution", "family", "level", "lang", "meta", "tests")
        },
    )
    for name, scores in parts.items():
        for problem, score in zip(problems, scores, strict=True):
            if not score or score <= 0:
                raise InputError(
                    f"the reward {name!r} does not accept the gold answer of problem {problem.id}: "
                    f"it scores {problem.solution!r} with {score}; mend the answer or the reward."
                )
