"""A policy so small that everything it can say can be listed.

Expectations over its completions, and over whole groups of them, are sums and not samples: the true
gradient is known, and so is the bias of every estimator of it.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from r1lab.errors import InputError
from r1lab.objective import LossConfig, Mask, Tokens, group_advantages, loss_normalizer, policy_loss

Scalar = Float[Tensor, ""]
Logits = Float[Tensor, "states vocabulary"]
PerState = Float[Tensor, " states"]
PerCompletion = Float[Tensor, " completions"]
PerToken = Float[Tensor, "completions tokens"]


@dataclass(frozen=True)
class Tree:
    """All completions over a few letters, the last of which ends a completion.

    A policy on it is a table of logits: one row for every state, which is a text that can still go
    on. "ab." and 3 tokens make 7 states and 15 completions of 1, 2 or 3 tokens; those of 3 tokens
    without the end letter are cut off. Tensors over completions follow the order of `completions`.
    """

    vocabulary: str = "ab."
    max_tokens: int = 3

    def texts(self, length: int) -> list[str]:
        """All texts of this length without the end letter."""
        return ["".join(letters) for letters in product(self.vocabulary[:-1], repeat=length)]

    @cached_property
    def states(self) -> list[str]:
        """Shorter texts first."""
        return [text for length in range(self.max_tokens) for text in self.texts(length)]

    @cached_property
    def completions(self) -> list[str]:
        return [state + self.vocabulary[-1] for state in self.states] + self.texts(self.max_tokens)

    @cached_property
    def mask(self) -> Bool[Tensor, "completions tokens"]:
        lengths = torch.tensor(list(map(len, self.completions)))
        return torch.arange(self.max_tokens) < lengths[:, None]

    @cached_property
    def _path(self):
        """The state of every token, and the token; 0 outside the mask."""
        path = torch.zeros(2, *self.mask.shape, dtype=torch.long)
        for row, t in self.mask.nonzero().tolist():
            text = self.completions[row]
            path[:, row, t] = torch.tensor([self.states.index(text[:t]), self.vocabulary.index(text[t])])
        return path

    def at_states(self, table: PerState) -> PerToken:
        """A number for every state, laid out along the completions; 0 outside the mask."""
        return torch.where(self.mask, table[self._path[0]], 0.0)

    def logps(self, logits: Logits) -> PerToken:
        """The log-prob of each token of each completion; 0 outside the mask."""
        return torch.where(self.mask, logits.log_softmax(-1)[*self._path], 0.0)

    def probabilities(self, logits: Logits) -> PerCompletion:
        return self.logps(logits).sum(1).exp()

    def mean(self, logits: Logits, values: PerCompletion) -> Scalar:
        """The exact expectation of `values`; of the rewards, it is the objective J."""
        return (self.probabilities(logits) * values).sum()

    def kl(self, logits: Logits, ref_logits: Logits) -> Scalar:
        """The exact KL(pi || pi_ref) between whole completions, in nats."""
        return self.mean(logits, (self.logps(logits) - self.logps(ref_logits)).sum(1))

    def scores(self, logits: Logits) -> Float[Tensor, "completions parameters"]:
        """The gradient of each completion's log-prob, flattened: what REINFORCE weighs."""
        jacobian = torch.autograd.functional.jacobian(lambda x: self.logps(x).sum(1), logits)
        return jacobian.flatten(1)

    def state_values(self, logits: Logits, rewards: PerCompletion) -> PerState:
        """The expected reward once a state is reached: what a perfect critic says there."""
        through = [text.startswith(state) for state, text in product(self.states, self.completions)]
        chances = self.probabilities(logits) * torch.tensor(through).view(len(self.states), -1)
        return chances @ rewards / chances.sum(1)

    def sample(self, logits: Logits, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Completions drawn from the policy, as their numbers."""
        chances = self.probabilities(logits).detach()
        drawn = torch.multinomial(chances, math.prod(shape), replacement=True, generator=generator)
        return drawn.view(shape)

    def groups(self, size: int) -> tuple[Int[Tensor, "groups size"], Float[Tensor, " groups"]]:
        """All groups of `size` completions without regard to order, and each one's orders."""
        numbers = torch.arange(len(self.completions))
        if math.comb(len(numbers) + size - 1, size) > 50_000:
            raise InputError(f"There are too many groups of {size} to list; use a smaller size.")
        rows = torch.combinations(numbers, size, with_replacement=True)
        counts = (rows[:, None] == numbers[:, None]).sum(2)  # how often each completion is drawn
        log_orders = math.lgamma(size + 1) - torch.lgamma(counts.double() + 1).sum(1)
        return rows, log_orders.exp().round()


def gradient(value: Scalar, logits: Logits) -> Float[Tensor, " parameters"]:
    """The gradient of a number that depends on the logits, flattened."""
    return torch.autograd.grad(value, logits, retain_graph=True)[0].flatten()


def mean_loss(
    tree: Tree, logits: Logits, rewards: PerCompletion, config: LossConfig, *, size: int = 3,
    divide_by_std: bool = True, old_logits: Logits | None = None, rollout_logits: Logits | None = None
) -> Scalar:  # fmt: skip
    """The exact mean of `policy_loss` over all groups of `size` that could be drawn.

    Without its KL term, which does not depend on the group. A group's loss scales with its
    advantages, so the chance of the group goes into them.

    Args:
        old_logits: the policy that scored the rollout; by default the policy itself.
        rollout_logits: the policy that really sampled it, where that differs from the scorer.
    """
    if config.beta:
        raise InputError("mean_loss leaves out the KL term: give a LossConfig with beta=0.")
    old = (logits if old_logits is None else old_logits).detach()
    sampler = old if rollout_logits is None else rollout_logits.detach()
    rows, orders = tree.groups(size)
    chances = orders.to(old) * tree.probabilities(sampler)[rows].prod(1)
    lengths = tree.mask.sum(1)[rows].tolist()
    counts = [loss_normalizer(config.aggregation, row, tree.max_tokens) for row in lengths]
    advantages = group_advantages(rewards[rows], divide_by_std=divide_by_std)
    weighed = advantages * (chances / torch.tensor(counts).to(old))[:, None]
    flat = rows.flatten()
    return policy_loss(
        tree.logps(logits)[flat], tree.logps(old)[flat], None, weighed.flatten(), tree.mask[flat], config,
        normalizer=1.0, rollout_logps=tree.logps(sampler)[flat]
    )[0]  # fmt: skip


def generalized_advantages(
    rewards: Tokens, values: Tokens, mask: Mask, lam: float, gamma: float = 1.0
) -> Tokens:
    """A_t = sum_l (gamma lam)^l delta_{t+l}, delta_t = r_t + gamma V_{t+1} - V_t (arXiv 1506.02438, eq. 16).

    Args:
        rewards: per token; with a reward for the whole completion, 0 but for its last token.
        values: the critic's V before each token; what they hold outside the mask has no part.
        mask: the completion's tokens, from the first column on. After its last one V is 0.
        lam: 1 believes the rewards (A = return - V), 0 the critic (A = delta).
        gamma: discount per token.
    Returns:
        The advantages, 0 outside the mask. Adding `values` gives the critic's targets. Give both
        detached: there is no gradient through an advantage.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = rewards + gamma * following - values
    advantages, later = torch.zeros_like(deltas), 0.0
    for t in reversed(range(deltas.shape[1])):
        later = deltas[:, t] + gamma * lam * later
        advantages[:, t] = later
    return advantages
