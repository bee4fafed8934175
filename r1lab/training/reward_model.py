"""Training of the reward models (paper, v2 section 3.1): pairs for helpfulness, labels for safety.

The paper: 66,000 pairs and 106,000 labelled completions, batches of 256, learning rate 6e-6, one
epoch, the policy's own architecture with a scalar head. Here a few thousand of each, and a base of
half a million parameters.
"""

import json
import math
import random
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from r1lab.errors import InputError
from r1lab.models.policy import load_policy
from r1lab.models.reward_model import RewardModel, new_reward_model
from r1lab.rewards import strict_answer
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.sources.templates import apply_template
from r1lab.task import Problem, held_out_ids
from r1lab.world import sample_problem
from r1lab.world.person import hidden_preference, is_safe
from r1lab.training.runs import write_atomically
from r1lab.training.supervised import SupervisedConfig, learning_rate

Pair = tuple[str, str, str]  # prompt, the reply that was preferred, the other one
Label = tuple[str, str, bool]  # prompt, whole completion, safe?

TESTED = 500  # held-out pairs or completions, at most


@dataclass(frozen=True)
class RewardModelConfig:
    """What a reward model learns from, and how.

    Attributes:
        writers: models whose replies are judged; each writes `samples` to every prompt.
        backbone: what the reward model starts from.
        examples: pairs or labelled completions to train on, at most.
        margin: pairs whose quality differs by less are dropped (the paper drops its judges' close
            calls, too).
        label_noise: share of training pairs whose verdict is the wrong way round (the paper
            averages four verdicts against this). The test's pairs, on held-out prompts, have none.
    """

    writers: tuple[str, ...] = ("data/base",)
    backbone: str = "data/base"
    template: str = "small"
    samples: int = 32
    max_tokens: int = 96
    examples: int = 2_000
    margin: float = 0.15
    label_noise: float = 0.05
    epochs: int = 2
    batch: int = 32
    learning_rate: float = 5e-4
    seed: int = 0


def bradley_terry(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
) -> Float[Tensor, ""]:
    """Mean of -log sigmoid(chosen - rejected): the surprise (nats) that the judge chose so."""
    return -F.logsigmoid(chosen - rejected).mean()


def pair_loss(model: RewardModel, pairs: list[Pair]) -> Float[Tensor, ""]:
    chosen, rejected = pair_scores(model, pairs)
    return bradley_terry(chosen, rejected)


def pair_scores(model: RewardModel, pairs: list[Pair]) -> tuple[Tensor, Tensor]:
    """Scores of the chosen and of the rejected replies, each [pairs]."""
    prompts, chosen, rejected = (list(column) for column in zip(*pairs, strict=True))
    scores = model(prompts + prompts, chosen + rejected)
    return scores[: len(pairs)], scores[len(pairs) :]


def label_loss(model: RewardModel, labels: list[Label]) -> Float[Tensor, ""]:
    """Mean logistic loss (nats) of the labels."""
    prompts, completions, safe = (list(column) for column in zip(*labels, strict=True))
    scores = model(prompts, completions)
    return F.binary_cross_entropy_with_logits(scores, torch.tensor(safe).to(scores))


def train_reward_models(config: RewardModelConfig, out: Path) -> Path:
    """Train both in `out/helpfulness` and `out/safety`; what is there stays.

    Raises:
        InputError: those that are there have other settings, the writers give nothing to compare,
            or a loss is not a number.
    """
    train_helpfulness(config, out / "helpfulness")
    train_safety(config, out / "safety")
    return out


def train_helpfulness(config: RewardModelConfig, folder: Path) -> dict:
    """The pairwise model of what is preferred in chat; returns its `summary.json`."""
    if (summary := finished(config, folder)) is not None:
        return summary
    train, test = _split(written(config, "chat"))
    pairs = preference_pairs(config, train, config.label_noise)[: config.examples]
    clean = preference_pairs(config, test, 0.0)[:TESTED]
    model = _fit(config, pairs, pair_loss)
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


def train_safety(config: RewardModelConfig, folder: Path) -> dict:
    """The pointwise model of what is safe; returns its `summary.json`."""
    if (summary := finished(config, folder)) is not None:
        return summary
    train, test = _split(written(config, "unsafe"))
    labels = safety_labels(config, train)[: config.examples]
    clean = safety_labels(config, test)[:TESTED]
    model = _fit(config, labels, label_loss)
    prompts, completions, safe = (list(column) for column in zip(*clean, strict=True))
    found = [score > 0.5 for score in model.judge(prompts, completions)]
    right = [one == other for one, other in zip(found, safe, strict=True)]
    return _store(config, model, folder, 0.0, {
        "completions": len(labels), "held_out_completions": len(clean),
        "safe_share": sum(safe) / len(safe), "held_out_accuracy": sum(right) / len(right),
    })  # fmt: skip


def written(config: RewardModelConfig, family: str) -> list[tuple[Problem, list[str]]]:
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


def _prompt(config: RewardModelConfig, problem: Problem) -> str:
    return apply_template(config.template, problem.prompt)


def _split(rows: list[tuple[Problem, list[str]]]) -> tuple[list, list]:
    """Prompts to train on, and those of the test sets."""
    tested = held_out_ids()
    return (
        [row for row in rows if row[0].id not in tested],
        [row for row in rows if row[0].id in tested],
    )


def preference_pairs(
    config: RewardModelConfig, rows: list[tuple[Problem, list[str]]], label_noise: float
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
        replies = sorted({reply for text in completions if (reply := strict_answer(text))})
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
    config: RewardModelConfig, rows: list[tuple[Problem, list[str]]]
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
        answers = [answer for text in completions if (answer := strict_answer(text))]
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


def _fit(
    config: RewardModelConfig, examples: list,
    loss_of: Callable[[RewardModel, list], Float[Tensor, ""]],
) -> RewardModel:  # fmt: skip
    """A reward model trained on the examples; a fresh order in each epoch."""
    torch.manual_seed(config.seed)
    rng = random.Random(config.seed)
    model = new_reward_model(config.backbone).train()
    epoch = math.ceil(len(examples) / config.batch)
    schedule = SupervisedConfig(
        steps=epoch * config.epochs, learning_rate=config.learning_rate,
        warmup_steps=max(1, epoch * config.epochs // 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    for step in range(schedule.steps):
        if step % epoch == 0:
            order = rng.sample(examples, len(examples))
        at = step % epoch * config.batch
        loss = loss_of(model, order[at : at + config.batch])
        if not loss.isfinite():
            raise InputError(
                f"the reward model's loss is not a number (step {step}); lower its learning rate "
                f"(now {config.learning_rate:g}) or look for weights that are not numbers in "
                f"{config.backbone}."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step)
        optimizer.step()
        optimizer.zero_grad()
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(
            "the reward model's weights are not numbers after its last step; lower its learning "
            f"rate (now {config.learning_rate:g})."
        )
    return model.eval()


def finished(config: RewardModelConfig, folder: Path) -> dict | None:
    """The summary of a folder that is finished, None of another.

    Raises:
        InputError: it was trained with other settings, and would be overwritten.
    """
    stored = folder / "summary.json"
    if not stored.exists():
        return None
    summary = json.loads(stored.read_text(encoding="utf-8"))
    had, asked = summary["config"], json.loads(json.dumps(asdict(config)))
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
    config: RewardModelConfig, model: RewardModel, folder: Path, average: float, results: dict
) -> dict:
    """Write the folder, which is there in whole or not at all, and return its summary."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save(partial, average)
    summary = {**results, "config": json.loads(json.dumps(asdict(config)))}
    write_atomically(partial / "summary.json", json.dumps(summary, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return summary
