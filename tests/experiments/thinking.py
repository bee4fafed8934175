"""What do more tokens at test time buy? Lesson 09's experiment.

The shipped base, R1-Zero and R1 answer the same puzzles with a longer cap, with forced thinking
(`notebooks/budget.py`), with a vote, and with the best of n by lesson 10's process reward model. There
is one model of each kind. So a seed is one of sampling, and of the reward model's training.

The ledger runs it (`python -m tests.experiments --only thinking`).
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from budget import think_between
from process_rewards import AGGREGATES, PRMConfig, ProcessRewardModel, train_prm
from r1lab.evaluation.estimators import cons_at_k
from r1lab.evaluation.measure import Evaluation, evaluate, measure
from r1lab.files import whole, write_text
from r1lab.models.policy import load_policy
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.sources.templates import apply_template
from r1lab.task import Problem, load_problems
from r1lab.training.recorder import first_of_each_level
from tests.experiments.next_steps import Kept, Trial, start, tabulate

PUZZLES = "data/test_signs.jsonl"
OTHER_WORD = "tea"  # where "wait" stands, as a control
READERS = 2  # of an answer that is judged: each token is written, and read by the judge


@dataclass(frozen=True)
class Thinking(Trial):
    """How the models are asked, small enough for three seeds on two cores.

    Attributes:
        models: by the name of their arms; the reward model starts from the first.
        problems: English ones, so many of each level: the reward model has read no others.
        answers: free ones to each problem, at most `cap` tokens long, of which a vote or the judge
            chooses; at each of `caps` the same ones are cut off earlier.
        samples: answers to each problem where its thinking must last for one of `least` tokens, or is
            closed after one of `most`, and in any case at `limit`.
        room: tokens for an answer after such thinking.
    """

    models: dict[str, str] = field(
        default_factory=lambda: {"base": "data/base", "zero": "data/zero", "r1": "data/r1"}
    )
    samples: int = 2
    problems: int = 16
    levels: tuple[int, ...] = (2, 3, 4, 5)
    answers: int = 16
    cap: int = 448
    caps: tuple[int, ...] = (64, 128, 256)
    most: tuple[int, ...] = (64, 128, 256)
    least: tuple[int, ...] = (128, 256)
    limit: int = 416
    room: int = 32
    prm: dict[str, Any] = field(default_factory=lambda: {"problems": 1_200})

    def asked(self) -> list[Problem]:
        problems = [p for p in load_problems(PUZZLES) if p.lang == "en" and p.level in self.levels]
        return first_of_each_level(problems, self.problems)

    @property
    def votes(self) -> list[int]:
        return [2**power for power in range(self.answers.bit_length())]


def thinking(config: Thinking = Thinking(), folder: Path = Path("runs/thinking")) -> Kept:
    """Ask each model in every way; each row of the table is against one free answer of R1."""
    for place in config.models.values():
        load_policy(place)  # a missing one is reported before the folder is made
    start(config, folder)
    problems, measured, judge = config.asked(), {}, None
    for name, place in config.models.items():
        file = folder / name / "values.npz"
        if not file.exists():
            started = time.monotonic()
            policy, tokenizer = load_policy(place)
            if judge is None:
                first, _ = load_policy(next(iter(config.models.values())))
                judge, _ = train_prm(first.model, tokenizer, PRMConfig(**config.prm, seed=config.seed))
            words = ("wait", OTHER_WORD) if name == [*config.models][-1] else ("wait",)
            found = ask_all(config, TorchSampler(policy.model, tokenizer), problems, judge, words)
            file.parent.mkdir(exist_ok=True)
            with whole(file) as partial_file, open(partial_file, "wb") as out:
                np.savez_compressed(out, **found)
            seconds = {"wall_seconds": round(time.monotonic() - started, 1)}
            write_text(file.with_name("summary.json"), json.dumps(seconds))
        with np.load(file) as values:
            for key in values.files:
                way, row = key.split("/")
                measured.setdefault(f"{name}_{way}", {})[row] = values[key]
    levels = np.array([problem.level for problem in problems])
    return tabulate(measured, "r1_vote_1", dict.fromkeys(("accuracy", "tokens"), levels), folder)


def ask_all(
    config: Thinking, sampler: TorchSampler, problems: Sequence[Problem], judge: ProcessRewardModel,
    words: Sequence[str],
) -> Kept:  # fmt: skip
    """Accuracy and tokens of each problem, by WAY_AMOUNT/ROW."""
    free = evaluate(
        sampler, sampler.tokenizer, problems, k=config.answers, max_tokens=config.cap, seed=config.seed
    )
    found = {f"cap_{cap}": capped(free, cap) for cap in config.caps}
    found |= chosen(config, free, scores(judge, free, problems))
    for most in config.most:
        found[f"close_{most}"] = forced(config, sampler, problems, 0, most)
    for word in words:
        for least in config.least if word == "wait" else config.least[-1:]:
            found[f"{word}_{least}"] = forced(config, sampler, problems, least, config.limit, word)
    found["vote_matched"] = matched(config, found, f"wait_{config.least[-1]}")
    return {
        f"{way}/{row}": values for way, pair in found.items()
        for row, values in zip(("accuracy", "tokens"), pair, strict=True)
    }  # fmt: skip


def capped(free: Evaluation, cap: int) -> tuple[np.ndarray, np.ndarray]:
    """The same answers, cut off earlier: what has not ended by then counts as wrong."""
    tokens = free["tokens"]
    right = free["correct"] * (tokens <= cap)
    return right.mean(axis=1), np.minimum(tokens, cap).mean(axis=1)


def scores(judge: ProcessRewardModel, free: Evaluation, problems: Sequence[Problem]) -> np.ndarray:
    """The judge's score of each answer's last step, which ranks best in lesson 10."""
    prompts = [apply_template("small", problem.prompt) for problem in problems]
    return np.array([
        [AGGREGATES["last"](steps) for steps in judge.scores([(prompt, text) for text in own])]
        for prompt, own in zip(prompts, free.completions, strict=True)
    ])  # fmt: skip


def chosen(config: Thinking, free: Evaluation, score: np.ndarray) -> dict:
    """One of n answers by a vote, and by the judge: means over the groups of n. Ties are shared."""
    found, tokens = {}, free["tokens"].mean(axis=1)
    for n in config.votes:
        groups = [slice(at, at + n) for at in range(0, config.answers, n)]
        vote = [cons_at_k(free["answer"][:, own], free["correct"][:, own]) for own in groups]
        best = []
        for own in groups:
            top = score[:, own] == score[:, own].max(axis=1, keepdims=True)
            best.append((top * free["correct"][:, own]).sum(axis=1) / top.sum(axis=1))
        found[f"vote_{n}"] = np.mean(vote, axis=0), n * tokens
        found[f"best_{n}"] = np.mean(best, axis=0), READERS * n * tokens
    return found


def forced(
    config: Thinking, sampler: TorchSampler, problems: Sequence[Problem], least: int, most: int,
    word: str = "wait",
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Answers after `least` to `most` tokens of thinking, with this word in place of an early end."""
    prompts = [apply_template("small", problem.prompt) + " <think>" for problem in problems]
    params = SamplingParams(config.samples, max_tokens=config.room, seed=config.seed)
    ids = [sampler.tokenizer(prompt).input_ids for prompt in prompts]
    drawn = think_between(least, most, sampler, ids, params, word, ("</think>", "<answer>"))
    each = [[one for one in own for _ in range(config.samples)] for own in (problems, prompts)]
    texts = sampler.tokenizer.batch_decode([own[: -(own[-1] in sampler.end_ids) or None] for own in drawn])
    rows = measure(each[0], texts, each[1])
    right = np.array([row["correct"] for row in rows], dtype=float)
    tokens = np.array([len(ids) for ids in drawn], dtype=float)
    return tuple(own.reshape(len(problems), -1).mean(axis=1) for own in (right, tokens))


def matched(config: Thinking, found: dict, way: str) -> tuple[np.ndarray, np.ndarray]:
    """The vote at the tokens of another way: between two sizes, linear in the log of the tokens.

    It is the nearest vote where one answer costs more than that way, or all of them cost less.
    """
    votes = [found[f"vote_{n}"] for n in config.votes]
    costs = np.log([tokens.mean() for _, tokens in votes])
    at = np.interp(np.log(found[way][1].mean()), costs, range(len(votes)))
    low = min(int(at), len(votes) - 2)
    share = at - low
    return tuple((1 - share) * a + share * b for a, b in zip(votes[low], votes[low + 1], strict=True))
