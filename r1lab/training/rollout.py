"""A rollout: a group of completions for each question, with rewards and advantages."""

import math
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from r1lab.objective import groups_that_differ
from r1lab.rewards import RewardSet
from r1lab.sampling import SamplingParams, completion_text
from r1lab.sources.templates import prompt_of
from r1lab.task import Problem, columns_of
from r1lab.training.batching import balanced_share
from r1lab.training.distributed import World

Row = Float[Tensor, " _"]  # one number for each token of a completion


@dataclass
class Experience:
    """One rollout, the same on every process; lists have an entry per completion, group after group.

    What is not known yet, or not needed, is None.

    Attributes:
        old_logps: under the policy that is trained, as it was when it began to learn from these.
        rollout_logps: as the sampler reports them, where it is not the policy (see `rescore`).
        ref_logps: under the reference policy, of the rows that this process trains on, by row.
        completions: the texts.
        rewards: by name; None where one could not score the completion.
        totals: the weighted rewards, NaN where none of them could score the completion.
        advantages: of each completion.
    """

    problems: list[Problem]
    prompts: list[str]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    finish: list[str]
    old_logps: list[Row]
    rollout_logps: list[Row] | None = None
    ref_logps: dict[int, Row] | None = None
    completions: list[str] | None = None
    rewards: dict[str, list[float | None]] | None = None
    totals: Float[Tensor, "questions group"] | None = None
    advantages: Float[Tensor, "questions group"] | None = None

    @property
    def lengths(self) -> list[int]:
        """Prompt and completion tokens of each row."""
        return [len(p) + len(c) for p, c in zip(self.prompt_ids, self.completion_ids)]

    def minibatches(self, count: int) -> list[list[int]]:
        """The rows of each mini-batch: whole groups, in the order of the questions."""
        return torch.arange(len(self.completion_ids)).view(count, -1).tolist()

    def statistics(self) -> dict[str, float]:
        """What the rewards look like, for the metrics."""
        return {
            "reward": self.totals.nanmean().item(),
            **{
                f"reward/{name}": _mean([value for value in values if value is not None])
                for name, values in self.rewards.items()
            },
            "zero_std_groups": 1 - groups_that_differ(self.totals).float().mean().item(),
            "truncated": _mean([finish == "length" for finish in self.finish]),
            "tokens_mean": _mean([len(ids) for ids in self.completion_ids]),
        }


def _mean(values):
    return sum(values) / max(1, len(values))


def gathered(world: World, share: Mapping[int, object]) -> list:
    """What all processes have found, each for its share of the rows, in the order of the rows."""
    by_row = ChainMap(*world.gather(share))
    return [by_row[row] for row in sorted(by_row)]


@contextmanager
def sampled(learner, problems: list[Problem]) -> Iterator[tuple[Experience, Callable[[], None]]]:
    """Sample a group for each question; gives the experience, and what waits for its rewards.

    Each process answers and grades its share of the questions; then all is gathered everywhere, so
    that mini-batches do not depend on who sampled what. Asynchronously, completions are graded in a
    thread, a few together, as they end, while others are sampled (v2 B.1) and then scored; in line,
    when the rewards are asked for. Both grade the same batches: results are the same to the last bit.
    """
    config, tokenizer, world = learner.config, learner.tokenizer, learner.world
    prompts = [prompt_of(learner.task, problem, tokenizer) for problem in problems]
    prompt_ids = [tokenizer(text).input_ids for text in prompts]
    mine = balanced_share([len(ids) for ids in prompt_ids], world.rank, world.size)
    group = config.group_size
    rows = [question * group + number for question in mine for number in range(group)]
    params = SamplingParams(
        n=group, temperature=config.temperature, max_tokens=config.cap(learner.step),
        seed=config.seed * 1_000_003 + learner.step // config.minibatches,
    )  # fmt: skip
    ended, batches, thread = {}, [], ThreadPoolExecutor(1, "grading")

    def on_done(place: int, ids: list[int], finish: str):
        ended[rows[place]] = ids, finish
        if len(ended) == config.grading_rows:
            grade()

    def grade():
        work = partial(graded, learner, problems, prompts, ended.copy())
        batches.append(thread.submit(work).result if config.grading == "asynchronous" else work)
        ended.clear()

    def reward():
        by_row = ChainMap(*[grades() for grades in batches])
        texts, totals, parts = zip(*gathered(world, by_row))
        experience.completions = list(texts)
        experience.rewards = {name: [scores[name] for scores in parts] for name in parts[0]}
        experience.totals = torch.tensor(totals).view(-1, group)

    try:
        watch = {"on_done": on_done} if config.grading_rows else {}
        drawn = learner.sampler.generate([prompt_ids[i] for i in mine], params, mine, **watch)
        if not config.grading_rows:
            ended |= zip(rows, zip(drawn.completion_ids, drawn.finish))
        if ended:
            grade()
        answers = zip(rows, zip(drawn.completion_ids, drawn.finish, drawn.scorer_logps))
        repeated = [[one for one in each for _ in range(group)] for each in (problems, prompts, prompt_ids)]
        experience = Experience(*repeated, *map(list, zip(*gathered(world, dict(answers)))))
        yield experience, reward
    finally:  # after an error, what the thread has not started is not graded
        thread.shutdown(cancel_futures=True)


def graded(
    learner, problems: list[Problem], prompts: list[str], ended: dict[int, tuple[list[int], str]]
) -> dict[int, tuple[str, float, dict]]:
    """By row, a completion's text, its total and each of its rewards, from its ids and finish."""
    config, step, count = learner.config, learner.step, len(ended)
    owners = [row // config.group_size for row in ended]
    texts = [completion_text(*one, learner.tokenizer) for one in ended.values()]
    columns = columns_of([problems[i] for i in owners]) | {
        "completion_ids": [ids for ids, _ in ended.values()], "step": [step] * count,
        "rollout": [step // config.minibatches] * count, "seed": [config.seed] * count,
    }  # fmt: skip
    totals, parts = RewardSet(learner.task.rewards)([prompts[i] for i in owners], texts, **columns)
    totals = [math.nan if total is None else total for total in totals]
    named = [dict(zip(parts, scores)) for scores in zip(*parts.values())]
    return dict(zip(ended, zip(texts, totals, named)))
