"""The two reward models of the last RL stage, and what they learn from (paper, v2 section 3.1).

Replies of the base and of Dev3 are judged by the hidden preference of the small world's person.
"""

import json
import random
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch

from r1lab.errors import InputError
from r1lab.files import whole
from r1lab.models.policy import load_policy
from r1lab.models.reward_model import RewardModel
from r1lab.rewards import parse
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.sources.templates import apply_template
from r1lab.task import Problem, held_out_ids
from r1lab.training.reward_model import (
    Label,
    Pair,
    RewardModelConfig,
    fit_reward_model,
    label_loss,
    pair_loss,
    pair_scores,
)
from r1lab.run import as_json
from r1lab.world import sample_problem
from r1lab.world.person import hidden_preference, is_safe

TESTED = 500  # held-out pairs or completions, at most


@dataclass(frozen=True)
class PreferenceConfig(RewardModelConfig):
    """What a reward model learns from, and how.

    Attributes:
        writers: models whose replies are judged; each writes `samples` to every prompt.
        examples: pairs or labelled completions to train on, at most.
        margin: pairs whose quality differs by less are dropped (the paper drops its judges' close
            calls, too).
        label_noise: share of training pairs whose verdict is the wrong way round (the paper
            averages four verdicts against this). The test's pairs, on held-out prompts, have none.
    """

    writers: tuple[str, ...] = ("data/base",)
    template: str = "small"
    samples: int = 32
    max_tokens: int = 96
    examples: int = 2_000
    margin: float = 0.15
    label_noise: float = 0.05


def train_reward_models(config: PreferenceConfig, out: Path) -> Path:
    """Train both in `out/helpfulness` and `out/safety`; what is there stays.

    Raises:
        InputError: those that are there have other settings, the writers give nothing to compare,
            or a loss is not a number.
    """
    train_helpfulness(config, out / "helpfulness")
    train_safety(config, out / "safety")
    return out


def train_helpfulness(config: PreferenceConfig, folder: Path) -> dict:
    """The pairwise model of what is preferred in chat; returns its `summary.json`."""
    if (summary := finished(config, folder)) is not None:
        return summary
    train, test = _split(written(config, "chat"))
    pairs = preference_pairs(config, train, config.label_noise)[: config.examples]
    clean = preference_pairs(config, test, 0.0)[:TESTED]
    model = fit_reward_model(config, pairs, pair_loss)
    with torch.no_grad():
        chosen, rejected = pair_scores(model, clean)
        average = torch.cat(pair_scores(model, pairs)).mean().item()
    lengths = {
        name: sum(len(pair[column].split()) for pair in pairs) / len(pairs)
        for column, name in ((1, "chosen"), (2, "rejected"))
    }
    return _store(config, model, folder, average, {
        "pairs": len(pairs), "held_out_pairs": len(clean), "words_mean": lengths,
        "held_out_accuracy": (chosen > rejected).double().mean().item(),
    })  # fmt: skip


def train_safety(config: PreferenceConfig, folder: Path) -> dict:
    """The pointwise model of what is safe; returns its `summary.json`."""
    if (summary := finished(config, folder)) is not None:
        return summary
    train, test = _split(written(config, "unsafe"))
    labels = safety_labels(config, train)[: config.examples]
    clean = safety_labels(config, test)[:TESTED]
    model = fit_reward_model(config, labels, label_loss)
    prompts, completions, safe = (list(column) for column in zip(*clean, strict=True))
    found = [score > 0.5 for score in model.judge(prompts, completions)]
    right = [one == other for one, other in zip(found, safe, strict=True)]
    return _store(config, model, folder, 0.0, {
        "completions": len(labels), "held_out_completions": len(clean),
        "safe_share": sum(safe) / len(safe), "held_out_accuracy": sum(right) / len(right),
    })  # fmt: skip


def written(config: PreferenceConfig, family: str) -> list[tuple[Problem, list[str]]]:
    """Every prompt of a family with the completions that the writers gave it."""
    rng = random.Random(config.seed)
    drawn = (sample_problem(rng, family, 1, "en") for _ in range(2_000))
    problems = list({problem.id: problem for problem in drawn}.values())
    params = SamplingParams(n=config.samples, max_tokens=config.max_tokens, seed=config.seed)
    completions: list[list[str]] = [[] for _ in problems]
    for writer in config.writers:
        policy, tokenizer = load_policy(writer)
        prompts = [_prompt(config, problem) for problem in problems]
        drawn = TorchSampler(policy.model, tokenizer).generate(tokenizer(prompts).input_ids, params)
        for row, text in enumerate(drawn.texts(tokenizer)):
            completions[row // config.samples].append(text)
    return list(zip(problems, completions, strict=True))


def _prompt(config: PreferenceConfig, problem: Problem) -> str:
    return apply_template(config.template, problem.prompt)


def _split(rows: list[tuple[Problem, list[str]]]) -> tuple[list, list]:
    """Prompts to train on, and those of the test sets."""
    tested = held_out_ids()
    return (
        [row for row in rows if row[0].id not in tested],
        [row for row in rows if row[0].id in tested],
    )


def preference_pairs(
    config: PreferenceConfig, rows: list[tuple[Problem, list[str]]], label_noise: float
) -> list[Pair]:
    """Pairs of summaries of the same prompt, judged by the hidden preference, in random order.

    The longer reply is the chosen one as often as the rejected one, by the same number of words,
    so that length alone tells nothing (the paper balances lengths, too).

    Raises:
        InputError: no two replies differ enough.
    """
    rng = random.Random(config.seed)
    by_gap: dict[int, list[Pair]] = defaultdict(list)
    for problem, completions in rows:
        prompt = _prompt(config, problem)
        replies = sorted({reply for text in completions if (reply := parse(text).answer)})
        liked = {reply: hidden_preference(prompt, reply, problem.meta) for reply in replies}
        for pair in combinations(replies, 2):
            worse, better = sorted(pair, key=liked.get)
            if liked[better] - liked[worse] >= config.margin:
                gap = len(better.split()) - len(worse.split())
                by_gap[gap].append((prompt, better, worse))
    pairs = []
    for gap, longer in by_gap.items():
        count = min(len(longer), len(by_gap.get(-gap, ())))
        pairs += rng.sample(longer, count)
    if not pairs:
        raise InputError(
            f"no two replies of {', '.join(config.writers)} to the same prompt differ by "
            f"{config.margin} in quality; sample more, or from a model whose replies vary."
        )
    rng.shuffle(pairs)
    return [
        (prompt, worse, better) if rng.random() < label_noise else (prompt, better, worse)
        for prompt, better, worse in pairs
    ]


def safety_labels(
    config: PreferenceConfig, rows: list[tuple[Problem, list[str]]]
) -> list[Label]:
    """Completions labelled safe or not, in random order.

    The writers' thinking is mostly empty; so each completion comes a second time with another
    one's answer as its thinking, for a model may plan in its thinking what its answer refuses.

    Raises:
        InputError: all are safe, or none is.
    """
    rng = random.Random(config.seed)
    labels = []
    for problem, completions in rows:
        prompt = _prompt(config, problem)
        answers = [answer for text in completions if (answer := parse(text).answer)]
        mixed = [
            f"<think> {rng.choice(answers)} </think> <answer> {answer} </answer>"
            for answer in answers
        ]
        labels += [(prompt, text, is_safe(prompt, text)) for text in completions + mixed]
    if len({safe for *_, safe in labels}) < 2:
        raise InputError(
            f"the completions of {', '.join(config.writers)} are all safe or all unsafe, which "
            "teaches nothing; name a writer that does both."
        )
    rng.shuffle(labels)
    return labels


def finished(config: PreferenceConfig, folder: Path) -> dict | None:
    """The summary of a folder that is finished, None of another.

    Raises:
        InputError: it was trained with other settings, and would be overwritten.
    """
    stored = folder / "summary.json"
    if not stored.exists():
        return None
    summary = json.loads(stored.read_text(encoding="utf-8"))
    had, asked = summary["config"], as_json(config)
    others = [
        f"with {name} {had.get(name)}, and you give {value}"
        for name, value in asked.items() if value != had.get(name)
    ]  # fmt: skip
    if others:
        raise InputError(
            f"{folder} was trained {', '.join(others)}; give the same settings, or another --name "
            "or folder for what is made with yours."
        )
    return summary


def _store(
    config: PreferenceConfig, model: RewardModel, folder: Path, average: float, results: dict
) -> dict:
    """Write the folder, which is there in whole or not at all, and return its summary."""
    summary = {**results, "config": as_json(config)}
    with whole(folder) as partial:
        model.save(partial, average)
        (partial / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return summary
