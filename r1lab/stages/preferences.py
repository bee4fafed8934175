"""The two reward models of the last RL stage, and what they learn from (paper, v2 section 3.1).

Replies of the base and of Dev3 are judged by the hidden preference of the small world's person:
pairs for helpfulness, labels for safety. The paper: 66,000 pairs and 106,000 labelled completions,
batches of 256, learning rate 6e-6, one epoch, the policy's own architecture with a scalar head. Here
a few thousand of each, and a base of half a million parameters.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import chain, combinations
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from r1lab.errors import InputError
from r1lab.evaluation.measure import evaluate
from r1lab.files import whole, write_json
from r1lab.models.reward_model import RewardModel, new_reward_model
from r1lab.rewards import parse
from r1lab.sources.templates import apply_template
from r1lab.task import held_out_ids
from r1lab.training.estimate import open_model
from r1lab.training.processes import compute
from r1lab.training.supervised import SupervisedConfig, learning_rate
from r1lab.run import Run
from r1lab.world import sample_problem
from r1lab.world.person import hidden_preference, is_safe
from r1lab.world.corpus import join_completion

TESTED = 500  # held-out pairs or completions, at most
Pair = tuple[str, str, str]  # prompt, the reply that was preferred, the other one
Label = tuple[str, str, bool]  # prompt, whole completion, safe?
Written = list[tuple[str, dict, list[str]]]  # prompts, the problems' `meta`, completions


@dataclass(frozen=True)
class PreferenceConfig:
    """What a reward model learns from, and how.

    Attributes:
        backbone: the model that it starts from.
        writers: models whose replies are judged; each writes `samples` to every prompt.
        examples: pairs or labelled completions to train on, at most.
        margin: pairs whose quality differs by less are dropped (the paper drops its judges' close
            calls, too).
        label_noise: share of training pairs whose verdict is the wrong way round (the paper
            averages four verdicts against this). The test's pairs, on held-out prompts, have none.
    """

    backbone: str = "data/base"
    epochs: int = 2
    batch: int = 32
    learning_rate: float = 5e-4
    seed: int = 0
    writers: tuple[str, ...] = ("data/base",)
    template: str = "small"
    samples: int = 32
    max_tokens: int = 96
    examples: int = 2_000
    margin: float = 0.15
    label_noise: float = 0.05


def bradley_terry(chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]) -> Float[Tensor, ""]:
    """Mean of -log sigmoid(chosen - rejected): the surprise (nats) that the judge chose so."""
    return -F.logsigmoid(chosen - rejected).mean()


def pair_loss(model: RewardModel, pairs: list[Pair]) -> Float[Tensor, ""]:
    return bradley_terry(*pair_scores(model, pairs))


def pair_scores(model: RewardModel, pairs: list[Pair]) -> tuple[Tensor, Tensor]:
    """Scores of the chosen and of the rejected replies, each [pairs]."""
    prompts, chosen, rejected = zip(*pairs)
    scores = model(prompts + prompts, chosen + rejected)
    return scores[: len(pairs)], scores[len(pairs) :]


def label_loss(model: RewardModel, labels: list[Label]) -> Float[Tensor, ""]:
    """Mean logistic loss (nats) of the labels."""
    prompts, completions, safe = zip(*labels)
    scores = model(prompts, completions)
    return F.binary_cross_entropy_with_logits(scores, torch.tensor(safe).to(scores))


def fit_reward_model(
    config: PreferenceConfig, examples: list,
    loss_of: Callable[[RewardModel, list], Float[Tensor, ""]],
) -> RewardModel:  # fmt: skip
    """Train a reward model on the examples, in a fresh order in each epoch.

    Raises:
        InputError: its weights have become something that is no number.
    """
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
        loss_of(model, order[at : at + config.batch]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step)
        optimizer.step()
        optimizer.zero_grad()
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(
            "the reward model's weights are not numbers after its last step; lower its learning rate (now "
            f"{config.learning_rate:g}) or look for weights that are not numbers in {config.backbone}."
        )
    return model.eval()


def train_reward_models(config: PreferenceConfig, folder: Path) -> Path:
    """Train both in `folder/helpfulness` and `folder/safety`, or what is left of them.

    Raises:
        InputError: those that are there have other settings, the writers give nothing to compare,
            or a loss is not a number.
    """
    return compute(Run(folder), config, judges_work, 1, config).folder


def judges_work(world, stop, run: Run, config: PreferenceConfig) -> bool:
    """Both reward models, one after the other. False: stopped on the way."""
    for name in JUDGES:
        if stop.is_set():
            return False
        if not (run.folder / name).exists():
            train_reward_model(name, config, run.folder / name)
    run.write("summary.json", {name: run.read(f"{name}/summary.json") for name in JUDGES})
    return True


def train_reward_model(name: str, config: PreferenceConfig, folder: Path) -> dict:
    """Train one of JUDGES; write its folder, in whole or not at all, and return its `summary.json`."""
    family, examples_of, loss_of, judged = JUDGES[name]
    train, test = written(config, family)
    examples = examples_of(config, train)[: config.examples]
    clean = examples_of(replace(config, label_noise=0.0), test)[:TESTED]
    model = fit_reward_model(config, examples, loss_of)
    average, results = judged(model, examples, clean)
    summary = results | {"config": asdict(config)}
    with whole(folder) as partial:
        model.save(partial, average)
        write_json(partial / "summary.json", summary)
    return summary


def written(config: PreferenceConfig, family: str) -> tuple[Written, Written]:
    """Every prompt of a family with the completions that the writers gave it: those to train on, and
    those of the test sets."""
    rng = random.Random(config.seed)
    drawn = (sample_problem(rng, family, 1, "en") for _ in range(2_000))
    problems = list({problem.id: problem for problem in drawn}.values())
    replies = [
        evaluate(
            *open_model(writer)[:2], problems, k=config.samples, max_tokens=config.max_tokens,
            seed=config.seed, template=config.template,
        ).completions
        for writer in config.writers
    ]  # fmt: skip
    parts = ([], [])
    tested = held_out_ids()
    for problem, *texts in zip(problems, *replies):
        prompt = apply_template(config.template, problem.prompt)
        parts[problem.id in tested].append((prompt, problem.meta, list(chain(*texts))))
    return parts


def preference_pairs(config: PreferenceConfig, rows: Written) -> list[Pair]:
    """Pairs of summaries of the same prompt, judged by the hidden preference, in random order.

    The longer reply is the chosen one as often as the rejected one, by the same number of words,
    so that length alone tells nothing (the paper balances lengths, too).

    Raises:
        InputError: no two replies differ enough.
    """
    rng = random.Random(config.seed)
    by_gap: dict[int, list[Pair]] = defaultdict(list)
    for prompt, meta, completions in rows:
        replies = sorted({reply for text in completions if (reply := parse(text).answer)})
        liked = {reply: hidden_preference(prompt, reply, meta) for reply in replies}
        for pair in combinations(replies, 2):
            worse, better = sorted(pair, key=liked.get)
            if liked[better] - liked[worse] >= config.margin:
                gap = len(better.split()) - len(worse.split())
                by_gap[gap].append((prompt, better, worse))
    pairs = []
    for gap, longer in by_gap.items():
        pairs += rng.sample(longer, min(len(longer), len(by_gap.get(-gap, ()))))
    if not pairs:
        raise InputError(
            f"no two replies of {', '.join(config.writers)} to the same prompt differ by "
            f"{config.margin} in quality; sample more, or from a model whose replies vary."
        )
    rng.shuffle(pairs)
    return [
        (prompt, worse, better) if rng.random() < config.label_noise else (prompt, better, worse)
        for prompt, better, worse in pairs
    ]


def safety_labels(config: PreferenceConfig, rows: Written) -> list[Label]:
    """Completions labelled safe or not, in random order.

    The writers' thinking is mostly empty; so each completion comes a second time with another
    one's answer as its thinking, for a model may plan in its thinking what its answer refuses.

    Raises:
        InputError: all are safe, or none is.
    """
    rng = random.Random(config.seed)
    labels = []
    for prompt, _, completions in rows:
        answers = [answer for text in completions if (answer := parse(text).answer)]
        mixed = [join_completion(rng.choice(answers), answer) for answer in answers]
        labels += [(prompt, text, is_safe(prompt, text)) for text in completions + mixed]
    if len({safe for *_, safe in labels}) < 2:
        raise InputError(
            f"the completions of {', '.join(config.writers)} are all safe or all unsafe, which "
            "teaches nothing; name a writer that does both."
        )
    rng.shuffle(labels)
    return labels


@torch.no_grad()
def judged_pairs(model: RewardModel, pairs: list[Pair], clean: list[Pair]) -> tuple[float, dict]:
    """The average score of what was learned from, and how well held-out pairs are ordered."""
    chosen, rejected = pair_scores(model, clean)
    average = torch.cat(pair_scores(model, pairs)).mean().item()
    lengths = {
        name: sum(len(pair[column].split()) for pair in pairs) / len(pairs)
        for column, name in ((1, "chosen"), (2, "rejected"))
    }
    return average, {
        "pairs": len(pairs), "held_out_pairs": len(clean), "words_mean": lengths,
        "held_out_accuracy": (chosen > rejected).double().mean().item(),
    }  # fmt: skip


@torch.no_grad()
def judged_labels(model: RewardModel, labels: list[Label], clean: list[Label]) -> tuple[float, dict]:
    """0, from which on a completion is safe, and how well held-out ones are labelled."""
    prompts, completions, safe = zip(*clean)
    right = (model(prompts, completions) > 0) == torch.tensor(safe)
    return 0.0, {
        "completions": len(labels), "held_out_completions": len(clean),
        "safe_share": sum(safe) / len(safe), "held_out_accuracy": right.double().mean().item(),
    }  # fmt: skip


# What a reward model reads, how it gets examples, what it minimizes, and how it is judged: one is
# pairwise, of what is preferred in chat, one pointwise, of what is safe.
JUDGES = {
    "helpfulness": ("chat", preference_pairs, pair_loss, judged_pairs),
    "safety": ("unsafe", safety_labels, label_loss, judged_labels),
}
