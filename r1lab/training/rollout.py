"""A rollout: completions of a group for each question, then their rewards and advantages."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from r1lab.objective import group_advantages
from r1lab.rewards import RewardSet
from r1lab.sampling import SamplingParams, completion_text
from r1lab.sources.templates import prompt_of
from r1lab.task import Problem, Task, columns_of
from r1lab.training.batching import balanced_share
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World

Ended = dict[int, tuple[list[int], str]]  # ids and finish by their place, in the order of their ends
Graded = dict[str, list]  # "completions", "totals" and "reward/NAME", one entry per completion


@dataclass(frozen=True)
class Samples:
    """All completions of one rollout, group-major, the same on every process; not graded yet.

    Lists have one entry per completion. `old_logps` are the policy's; `rollout_logps` the sampler's
    own, where it computes with other code than the policy.
    """

    problems: list[Problem]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    finish: list[str]
    old_logps: list[Float[Tensor, " _"]]
    rollout_logps: list[Float[Tensor, " _"]] | None = field(default=None, kw_only=True)

    @property
    def lengths(self) -> list[int]:
        """Prompt and completion tokens of each row."""
        return [len(p) + len(c) for p, c in zip(self.prompt_ids, self.completion_ids, strict=True)]

    def minibatch_rows(self, number: int, count: int) -> list[int]:
        """The rows of mini-batch `number` of `count`: whole groups, in the order of questions."""
        rows = len(self.completion_ids) // count
        return list(range(number * rows, (number + 1) * rows))


@dataclass(frozen=True)
class Experience(Samples):
    """Samples with their texts, rewards and advantages.

    `totals` is the weighted reward, NaN where none of its parts could score the completion.
    """

    completions: list[str]
    rewards: dict[str, list[float | None]]
    totals: Float[Tensor, "questions group"]
    advantages: Float[Tensor, "questions group"]

    def advantages_of(self, rows: list[int], width: int) -> Tensor:
        """For the loss: one advantage per row; a critic's are [row, column], `width` columns."""
        return self.advantages.flatten()[rows]


@contextmanager
def sampled(
    config: GRPOConfig, task: Task, problems: list[Problem], sampler, tokenizer, world: World,
    step: int,
) -> Iterator[tuple[Samples, Callable[[], Graded]]]:  # fmt: skip
    """Sample a group for each question; gives the samples, and what waits for their rewards.

    Until the rewards are asked for, what needs none can be computed. Each process answers and
    grades its share of the questions; then everything is gathered everywhere, so that the
    mini-batches do not depend on who sampled what.
    """
    rollout = step // config.minibatches
    prompts = [prompt_of(task, problem, tokenizer) for problem in problems]
    prompt_ids = [tokenizer(text).input_ids for text in prompts]
    mine = balanced_share([len(ids) for ids in prompt_ids], world.rank, world.size)
    params = SamplingParams(
        n=config.group_size,
        temperature=config.temperature,
        max_tokens=config.cap(step),
        seed=config.seed * 1_000_003 + rollout,
    )
    rewards = RewardSet(task.rewards)

    def grade(ended: Ended) -> Graded:
        texts = [completion_text(*one, tokenizer) for one in ended.values()]
        owners = [mine[place // config.group_size] for place in ended]
        totals, parts = rewards(
            prompts=[prompts[i] for i in owners],
            completions=texts,
            completion_ids=[ids for ids, _ in ended.values()],
            step=[step] * len(owners),
            rollout=[rollout] * len(owners),
            seed=[config.seed] * len(owners),
            **columns_of([problems[i] for i in owners]),
        )
        named = {f"reward/{name}": values for name, values in parts.items()}
        return {"completions": texts, "totals": totals, **named}

    def gather(rows: dict[str, list]) -> dict[str, list]:
        return _merge(world.gather((mine, rows)), len(problems), config.group_size)

    grading = Grading(config, grade)
    try:
        watch = {"on_done": grading.on_done} if config.grading_rows else {}
        drawn = sampler.generate([prompt_ids[i] for i in mine], params, stream_ids=mine, **watch)
        if not config.grading_rows:
            grading.ended |= enumerate(zip(drawn.completion_ids, drawn.finish))
        grading.submit()
        all_ids = [ids for ids in prompt_ids for _ in range(config.group_size)]
        own = {name: getattr(drawn, name) for name in ("completion_ids", "finish")}
        rows = gather(own | {"old_logps": drawn.scorer_logps})
        yield Samples(problems, all_ids, **rows), lambda: gather(grading.rows())
    finally:  # after an error, what the thread has not started is not graded
        grading.thread.shutdown(cancel_futures=True)


class Grading:
    """Grades the completions of one process, a few together, as they end.

    Asynchronously that is done in a thread while others are still sampled, as with the paper's
    rule-based rewards (v2 B.1), and while they are scored; in line when the rewards are asked for.
    Both ways grade the same batches, so that the results are the same to the last bit.
    """

    def __init__(self, config: GRPOConfig, grade: Callable[[Ended], Graded]):
        self.config, self.grade = config, grade
        self.thread = ThreadPoolExecutor(1, "grading")
        self.ended: Ended = {}
        self.batches: list[tuple[Ended, Callable[[], Graded]]] = []

    def on_done(self, place: int, ids: list[int], finish: str) -> None:
        """The sampler says that the completion in this place has ended."""
        self.ended[place] = ids, finish
        if len(self.ended) == self.config.grading_rows:
            self.submit()

    def submit(self) -> None:
        """Grade those that have ended since the last time, if any."""
        if self.ended:
            work = partial(self.grade, self.ended)
            asynchronous = self.config.grading == "asynchronous"
            later = self.thread.submit(work).result if asynchronous else work
            self.batches.append((self.ended, later))
            self.ended = {}

    def rows(self) -> Graded:
        """By name, one entry for each completion. What grading raises is raised here."""
        found: dict[str, dict[int, object]] = {}
        for ended, later in self.batches:
            for name, values in later().items():
                found.setdefault(name, {}).update(zip(ended, values, strict=True))
        return {name: [of[place] for place in sorted(of)] for name, of in found.items()}


def with_advantages(config: GRPOConfig, samples: Samples, graded: Graded) -> Experience:
    """The samples with their rewards and the groups' advantages (R1 v2 eq. 3)."""
    nan = float("nan")
    totals = torch.tensor([nan if total is None else total for total in graded["totals"]])
    totals = totals.view(len(samples.problems), config.group_size)
    rewards = {
        name.removeprefix("reward/"): values
        for name, values in graded.items()
        if name.startswith("reward/")
    }
    return Experience(
        **vars(samples),
        completions=graded["completions"],
        rewards=rewards,
        totals=totals,
        advantages=group_advantages(totals, divide_by_std=config.divide_by_std),
    )


def _merge(shares: list[tuple[list[int], dict]], questions: int, group: int) -> dict[str, list]:
    """Put every process' rows back in the order of the questions."""
    merged: dict[str, list] = {name: [None] * (questions * group) for name in shares[0][1]}
    for indices, local in shares:
        for name, values in local.items():
            for place, question in enumerate(indices):
                own = values[place * group : (place + 1) * group]
                merged[name][question * group : (question + 1) * group] = own
    return merged
