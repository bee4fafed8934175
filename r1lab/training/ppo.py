"""PPO with a critic: GRPO's loop, with advantages from a value model instead of the group.

R1 v2 A.3 compares the two. Everything else is shared: rollouts, clipped objective, KL in the loss.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from r1lab.objective import generalized_advantages, policy_loss, value_loss
from r1lab.models.policy import Policy, completion_columns
from r1lab.task import Task
from r1lab.training.batching import pad_columns
from r1lab.training.config import SAMPLING_FLOPS, TRAINING_FLOPS, GRPOConfig
from r1lab.training.distributed import World, clip_gradients
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience, Samples


class Critic(nn.Module):
    """The base model's layers, copied, with one number in place of the vocabulary.

    The number is the total reward to be expected when the completion goes on from here. It starts
    at 0 everywhere.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.body = copy.deepcopy(model.get_decoder())
        self.head = nn.Linear(model.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, ids: Int[Tensor, "batch seq"], completion_mask: Bool[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch completion"]:
        """The value of the state that each completion token was chosen in; columns as `Policy`'s.

        The state of the first token is the prompt: the critic never sees the token it judges.
        """
        at, inside = completion_columns(completion_mask)
        hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
        values = self.head(hidden).squeeze(-1).gather(1, (at - 1).clamp(min=0))
        return torch.where(inside, values, 0.0)


@dataclass(frozen=True)
class JudgedExperience(Experience):
    """An experience with an advantage and a target of the critic for every token.

    `advantages` are the means over each completion's tokens, for the record.
    """

    token_advantages: list[Float[Tensor, " _"]]
    returns: list[Float[Tensor, " _"]]

    def advantages_of(self, rows: list[int], width: int) -> Float[Tensor, "rows width"]:
        return pad_columns([self.token_advantages[row] for row in rows], width)


def judge(
    experience: Experience, values: list[Float[Tensor, " _"]], lam: float
) -> JudgedExperience:
    """Advantages from the critic's values, whitened over all tokens of the rollout.

    The reward comes with the last token; nothing is discounted. A completion that could not be
    scored teaches nothing: its advantages are 0, and its targets the critic's own values.
    """
    lengths = torch.tensor([len(own) for own in values])
    width = int(lengths.max())
    mask = torch.arange(width) < lengths[:, None]
    scored = mask & ~experience.totals.flatten().isnan()[:, None]
    padded = pad_columns(values, width)
    rewards = torch.zeros_like(padded)
    last = (lengths - 1).clamp(min=0)[:, None]
    rewards.scatter_(1, last, experience.totals.flatten().nan_to_num(0.0)[:, None])
    raw = generalized_advantages(rewards, padded, mask, lam=lam, gamma=1.0)
    raw = torch.where(scored, raw, 0.0)
    white = torch.where(scored, (raw - raw[scored].mean()) / (raw[scored].std() + 1e-8), 0.0)
    means = white.sum(1) / lengths.clamp(min=1)
    return JudgedExperience(
        **{field.name: getattr(experience, field.name) for field in fields(Experience)}
        | {"advantages": means.view_as(experience.totals)},
        token_advantages=[row[inside] for row, inside in zip(white, mask, strict=True)],
        returns=[row[inside] for row, inside in zip(padded + raw, mask, strict=True)],
    )


class PPOLearner(Learner):
    """The loop's learner with a critic beside the policy, trained on the same mini-batches."""

    def __init__(
        self, config: GRPOConfig, task: Task, policy: Policy, tokenizer, world: World,
        loss: Callable = policy_loss,
    ):  # fmt: skip
        self.critic = Critic(policy.model)  # while the model's weights are whole
        super().__init__(config, task, policy, tokenizer, world, loss)
        world.place(self.critic)
        self.modules["critic"] = self.critic
        self.critic_optimizer = torch.optim.AdamW(
            self.critic.parameters(), lr=config.critic_learning_rate, betas=(0.9, 0.95),
            weight_decay=0.0, fused=True,
        )  # fmt: skip
        self.optimizers["critic_optimizer"] = self.critic_optimizer

    def advantage(self, samples: Samples, rewards: dict[str, list]) -> JudgedExperience:
        """Each process asks its critic about its share; all put the answers together alike."""
        experience = super().advantage(samples, rewards)
        merged: dict[int, Tensor] = {}
        for share in self.world.gather(self.values(experience)):
            merged |= share
        return judge(experience, [merged[row] for row in sorted(merged)], self.config.gae_lambda)

    def flops(self, experience: Experience) -> int:
        """The critic reads each answer before it learns from it, as the policy does."""
        weights = sum(parameter.numel() for parameter in self.critic.parameters())
        each = TRAINING_FLOPS + SAMPLING_FLOPS
        return super().flops(experience) + each * weights * sum(experience.lengths)

    def values(self, experience: Experience) -> dict[int, Float[Tensor, " _"]]:
        """By row, what the critic expects at each token, for this process's share of the rows."""
        counts = [len(ids) for ids in experience.completion_ids]
        found: dict[int, Tensor] = {}
        batches = self._batches(experience, list(range(len(counts))))
        for batch in self.world.in_step(batches, self.critic):
            with torch.no_grad():
                lines = self.critic(*self._pad(experience, batch)).cpu()
            found |= {row: line[: counts[row]] for row, line in zip(batch, lines, strict=True)}
        return found

    def update(
        self, experience: JudgedExperience, ref_logps: dict[int, Tensor], rows: list[int]
    ) -> dict[str, float]:
        metrics = super().update(experience, ref_logps, rows)
        return {**metrics, "value_loss": self.update_critic(experience, rows)}

    def update_critic(self, experience: JudgedExperience, rows: list[int]) -> float:
        """One step of the critic; its loss per token before the step, over all processes."""
        tokens = float(sum(len(experience.completion_ids[row]) for row in rows))
        total = 0.0
        batches = self._batches(experience, rows)
        for batch in self.world.in_step(batches, self.critic):
            ids, mask = self._pad(experience, batch)
            values = self.critic(ids, mask)
            returns = pad_columns([experience.returns[row] for row in batch], values.shape[1])
            _, inside = completion_columns(mask)
            loss = value_loss(values, returns.to(values), inside, normalizer=max(1.0, tokens))
            loss.backward()
            total += loss.item()
        self.world.sum_gradients(self.critic)
        if clip_gradients(self.critic, self.config.max_grad_norm).isfinite():
            self.critic_optimizer.step()
        self.critic_optimizer.zero_grad()
        return sum(self.world.gather(total))
