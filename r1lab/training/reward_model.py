"""Training of a reward model (paper, v2 section 3.1): pairs for helpfulness, labels for safety.

The paper: 66,000 pairs and 106,000 labelled completions, batches of 256, learning rate 6e-6, one
epoch, the policy's own architecture with a scalar head. Here a few thousand of each, and a base of
half a million parameters.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from r1lab.errors import InputError
from r1lab.models.reward_model import RewardModel, new_reward_model
from r1lab.training.supervised import SupervisedConfig, learning_rate

Pair = tuple[str, str, str]  # prompt, the reply that was preferred, the other one
Label = tuple[str, str, bool]  # prompt, whole completion, safe?


@dataclass(frozen=True)
class RewardModelConfig:
    """How a reward model learns from its examples; `backbone` is what it starts from."""

    backbone: str = "data/base"
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


def fit_reward_model(
    config: RewardModelConfig, examples: list,
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
        loss = loss_of(model, order[at : at + config.batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step)
        optimizer.step()
        optimizer.zero_grad()
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(
            "the reward model's weights are not numbers after its last step; lower its learning rate "
            f"(now {config.learning_rate:g}) or look for weights that are not numbers in "
            f"{config.backbone}."
        )
    return model.eval()
