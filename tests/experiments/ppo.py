"""PPO with a critic: GRPO's loop, with advantages from a value model instead of the group.

R1 v2 A.3 compares the two. Everything else is shared: rollouts, clipped objective, KL in the loss.
"""

import copy
from collections import Counter

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from r1lab.models.policy import completion_columns
from r1lab.objective import Mask, Tokens
from r1lab.training.config import SAMPLING_FLOPS, TRAINING_FLOPS
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience, Row, gathered
from tabular import generalized_advantages


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


def judge(
    totals: Float[Tensor, " rows"], values: list[Row], lam: float
) -> tuple[Float[Tensor, "rows column"], Float[Tensor, "rows column"]]:
    """Advantages from the critic's values, whitened over all tokens of the rollout, and its targets.

    The reward comes with the last token; nothing is discounted. A completion that could not be
    scored teaches nothing: its advantages are 0, and its targets the critic's own values.
    """
    lengths = torch.tensor([len(own) for own in values])[:, None]
    padded = pad_sequence(values, batch_first=True)
    columns = torch.arange(padded.shape[1])
    mask = columns < lengths
    scored = mask & ~totals.isnan()[:, None]
    rewards = torch.where(columns == lengths - 1, totals.nan_to_num(0.0)[:, None], 0.0)
    raw = torch.where(scored, generalized_advantages(rewards, padded, mask, lam), 0.0)
    white = torch.where(scored, (raw - raw[scored].mean()) / (raw[scored].std() + 1e-8), 0.0)
    return white, padded + raw


def value_loss(
    values: Tokens, returns: Tokens, mask: Mask, *, normalizer: float | None = None
) -> Float[Tensor, ""]:
    """(V - return)^2 / 2, summed over tokens and divided by `normalizer` (default: their number).

    PPO's code often clips V to near its old value as well. That is left out: the paper does not
    mention it.
    """
    squared = torch.where(mask, values - returns, 0.0) ** 2
    if normalizer is None:
        normalizer = float(mask.sum().clamp(min=1))
    return squared.sum() / (2 * normalizer)


class PPOLearner(Learner):
    """The loop's learner with a critic beside the policy, trained on the same mini-batches.

    Args:
        gae_lambda: 1 takes the reward that came, 0 the critic's word for it, one token later.
        critic_learning_rate: constant; chosen by how well the critic predicts the base's rewards,
            before any comparison.
    """

    def __init__(
        self, config, task, policy, *others, gae_lambda=1.0, critic_learning_rate=1e-3, **options
    ):
        self.gae_lambda, self.critic = gae_lambda, Critic(policy.model)  # while its weights are whole
        super().__init__(config, task, policy, *others, **options)
        self.place("critic_optimizer", self.critic, critic_learning_rate)
        self.modules["critic"] = self.critic

    def advantage(self, experience: Experience) -> Float[Tensor, "questions group"]:
        """One for each token, from the critic; returns the means over each completion's tokens.

        Each process asks its critic about its share; all put the answers together alike.
        """
        own = self.scored(self.critic, experience, minibatches=1)
        values = [row.cpu() for row in gathered(self.world, own)]
        white, self.returns = judge(experience.totals.flatten(), values, self.gae_lambda)
        self.token_advantages = white
        lengths = torch.tensor([len(own) for own in values])
        return (white.sum(1) / lengths.clamp(min=1)).view_as(experience.totals)

    def advantages_of(
        self, experience: Experience, rows: list[int], columns: int
    ) -> Float[Tensor, "rows columns"]:
        return self.token_advantages[rows, :columns]

    def add_loss(self, experience: Experience, rows: list[int]) -> Counter:
        """Also the critic's, and its gradient."""
        sums = super().add_loss(experience, rows)
        tokens = float(max(1, sum(len(experience.completion_ids[row]) for row in rows)))
        for own, ids, completion, mask in self.batches(experience, rows, self.critic):
            values = self.critic(ids, completion)
            returns = self.returns[own, : mask.shape[1]].to(values)
            loss = value_loss(values, returns, mask, normalizer=tokens)
            loss.backward()
            sums["value_loss"] += loss.item()
        return sums

    def flops(self, experience: Experience) -> int:
        """The critic reads each answer before it learns from it, as the policy does."""
        weights = sum(parameter.numel() for parameter in self.critic.parameters())
        each = TRAINING_FLOPS + SAMPLING_FLOPS
        return super().flops(experience) + each * weights * sum(experience.lengths)
