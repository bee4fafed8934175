"""The descendants of GRPO's objective, on r1lab's public doors: RLOO, CISPO, DAPO, and masks.

Each is a function of a group's rewards, a loss with the signature of `objective.policy_loss`
(`grpo(loss=...)`), a reward of a Task, or, where it changes what is sampled or trained on, a
`Learner` (`grpo(learner=...)`). Where TRL 1.16 has the same, values and gradients equal its own.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor, nn

from r1lab.errors import InputError
from r1lab.objective import clipped_objective, groups_that_differ, loss_normalizer, policy_loss
from r1lab.training.config import SAMPLING_FLOPS, learning_flops
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience, sampled

Groups = Float[Tensor, "questions group"]
LISTS = (
    "problems", "prompts", "prompt_ids", "completion_ids", "finish", "old_logps", "rollout_logps",
    "completions",
)  # fmt: skip
STREAM = 1_000  # between the seeds of two draws of one rollout: above every seed of the ledger


def leave_one_out(rewards: Groups) -> Groups:
    """A_i = r_i minus the mean of the group's other rewards (RLOO, arXiv 2402.14740).

    A completion that could not be scored (NaN), or has no scored one beside it, gets 0.
    """
    scored = ~rewards.isnan()
    values, others = rewards.nan_to_num(0.0), scored.sum(1, keepdim=True) - 1
    baseline = (values.sum(1, keepdim=True) - values) / others.clamp(min=1)
    return torch.where(scored & (others > 0), values - baseline, 0.0)


def kl_term(logps, old_logps, ref_logps, advantages, mask, config, normalizer):
    """The KL term of the loss alone, its metrics, and what sums over tokens are divided by."""
    if normalizer is None:
        normalizer = loss_normalizer(config.aggregation, mask.sum(1).tolist(), mask.shape[1])
    nothing = torch.zeros_like(advantages)
    loss, metrics = policy_loss(
        logps, old_logps, ref_logps, nothing, mask, config, normalizer=normalizer
    )
    return loss, metrics, normalizer


def rloo(
    logps, old_logps, ref_logps, advantages, mask, config, *, rollout_logps=None, normalizer=None
):
    """RLOO's loss: the completion is one action, so the ratio is its whole probability's.

    The sampler's own log-probs have no part in it. The KL term is GRPO's; TRL's is in the reward.
    """
    loss, metrics, divisor = kl_term(
        logps, old_logps, ref_logps, advantages, mask, config, normalizer
    )
    ratio = torch.where(mask, logps - old_logps, 0.0).sum(1, keepdim=True).exp()
    objective = clipped_objective(ratio, advantages[:, None], config.clip_low, config.clip_high)
    return loss - objective.sum() / divisor, metrics | {"ratio_max": ratio.detach().max()}


def cispo(
    logps, old_logps, ref_logps, advantages, mask, config, *, rollout_logps=None, normalizer=None
):
    """CISPO: cut the weight and not the token's gradient (MiniMax-M1, arXiv 2506.13585).

    The loss is -sg[min(ratio, 1 + clip_high)] A log pi: a token beyond the cap still learns.
    """
    loss, metrics, divisor = kl_term(
        logps, old_logps, ref_logps, advantages, mask, config, normalizer
    )
    ratio, cap = torch.where(mask, logps - old_logps, 0.0).exp().detach(), 1 + config.clip_high
    weight = ratio.clamp(max=cap) * advantages[:, None]
    if rollout_logps is not None:
        drift = torch.where(mask, old_logps - rollout_logps, 0.0)
        weight = weight * drift.exp().clamp(max=config.rollout_weight_cap)
    objective = torch.where(mask, weight * logps, 0.0).sum() / divisor
    return loss - objective, metrics | {"clip_fraction": ((ratio > cap) & mask).sum()}


def off_policy_mask(limit: float) -> Callable:
    """A loss that drops bad completions which the policy has left (DeepSeek-V3.2, eq. 9).

    That is, those with A < 0 whose log-probs have fallen by more than `limit` nats per token since
    they were sampled. TRL calls the limit `off_policy_mask_threshold`.
    """

    def loss(
        logps, old_logps, ref_logps, advantages, mask, config, *, rollout_logps=None, **divisor
    ):
        sampled_logps = old_logps if rollout_logps is None else rollout_logps
        fallen = torch.where(mask, sampled_logps - logps.detach(), 0.0).sum(1)
        stays = (advantages >= 0) | (fallen / mask.sum(1).clamp(min=1) <= limit)
        advantages = advantages * stays
        return policy_loss(
            logps, old_logps, ref_logps, advantages, mask, config,
            rollout_logps=rollout_logps, **divisor,
        )  # fmt: skip

    return loss


def drift_mask(cap: float = 3.0) -> Callable:
    """A loss that weighs a completion by pi_old(o) / pi_rollout(o), and drops it above `cap`.

    TRL's `vllm_importance_sampling_mode="sequence_mask"`, its default.
    """

    def loss(
        logps, old_logps, ref_logps, advantages, mask, config, *, rollout_logps=None, **divisor
    ):
        if rollout_logps is not None:
            weight = torch.where(mask, old_logps - rollout_logps, 0.0).sum(1).exp()
            advantages = advantages * torch.where(weight > cap, 0.0, weight)
        return policy_loss(logps, old_logps, ref_logps, advantages, mask, config, **divisor)

    return loss


def soft_overlong(longest: int, buffer: int) -> Callable[..., list[float]]:
    """DAPO's reward for length: 0 up to `longest - buffer` tokens, then down to -1 (its 3.4)."""

    def overlong(completion_ids, **columns):
        allowed = longest - buffer
        return [max(-1.0, min(0.0, (allowed - len(ids)) / buffer)) for ids in completion_ids]

    return overlong


class RLOO(Learner):
    """Advantages by leaving one out. Give `loss=rloo` beside it for the whole method."""

    def advantage(self, experience: Experience) -> Groups:
        return leave_one_out(experience.totals)


class MaskedTruncation(Learner):
    """Nothing is learned from an answer that the cap cut off (DAPO section 3.4)."""

    def add_loss(self, experience: Experience, rows: list[int]) -> Counter:
        ended = [row for row in rows if experience.finish[row] != "length"]
        return super().add_loss(experience, ended)


class SkipSilent(Learner):
    """The updates read no completion whose advantage is 0: without a KL term it has no gradient.

    The loss is divided by the tokens of all, so the gradient stays what it was. The updates' metrics
    (entropy, clip fraction) are those of the completions that were read. Needs `beta` 0: a KL term
    also pulls on groups that are all right or all wrong, and a run with one is refused.
    """

    def __init__(self, config, *others, **options):
        if config.loss.beta > 0:
            raise InputError(
                f"beta is {config.loss.beta:g}, so silent groups have a KL term to learn from; give "
                "beta 0, or learn with the plain Learner."
            )
        super().__init__(config, *others, **options)

    def batches(self, experience: Experience, rows: Sequence[int], module: nn.Module) -> Iterator:
        advantages = experience.advantages  # None while the rollout is only scored
        if advantages is not None:
            rows = [row for row in rows if advantages.flatten()[row] != 0]
        return super().batches(experience, rows, module)

    def flops(self, experience: Experience) -> int:
        """The updates' share of what is not read was not spent."""
        lengths = zip(experience.lengths, experience.advantages.flatten().tolist())
        skipped = sum(length for length, advantage in lengths if advantage == 0)
        each = learning_flops(self.config.lora) * self.policy.model.num_parameters()
        return super().flops(experience) - each * skipped


class DynamicSampling(Learner):
    """A group that is all right or all wrong makes room for a newly drawn one (DAPO section 3.2).

    The run may draw as many completions as its rollouts would without this, those that are dropped
    among them. It ends where no whole rollout is left of them. Where they run out while groups are
    replaced, the rest is trained on as it is.

    Attributes:
        drawn: completions so far; in the metrics, too.
    Args:
        judge: the name of the reward that says right or wrong.
    """

    def __init__(self, config, *others, judge: str = "accuracy", **options):
        super().__init__(config, *others, **options)
        self.judge, self.drawn, self.dropped_tokens = judge, 0, 0
        self.budget = config.rollouts * config.questions * config.group_size

    def advantage(self, experience: Experience) -> Groups:
        group, self.dropped_tokens = self.config.group_size, 0
        self.drawn += experience.totals.numel()
        for attempt in count(1):
            places = self.silent(experience)[: (self.budget - self.drawn) // group]
            if not places:
                break
            self.drawn += len(places) * group
            self.put(self.fresh(len(places), attempt), experience, places)
        experience.ref_logps = self.reference_logps(experience)
        return super().advantage(experience)

    def silent(self, experience: Experience) -> list[int]:
        """The groups that say nothing: all of their answers are right, or all wrong."""
        scores = [torch.nan if one is None else one for one in experience.rewards[self.judge]]
        speaks = groups_that_differ(torch.tensor(scores).view_as(experience.totals))
        return (~speaks).nonzero().flatten().tolist()

    def fresh(self, questions: int, attempt: int) -> Experience:
        """Groups for this number of new questions, from random streams of their own."""
        other = copy.copy(self)
        other.config = replace(self.config, seed=self.config.seed + attempt * STREAM)
        rollout = self.step // self.config.minibatches
        problems = self.task.draw(other.config.seed, rollout, questions)
        with sampled(other, problems) as (experience, reward):
            other.config = replace(other.config, minibatches=1)  # whatever number was drawn again
            other.rescore(experience)
            reward()
        return experience

    def put(self, fresh: Experience, experience: Experience, places: list[int]):
        """The fresh groups in these places."""
        experience.totals[places] = fresh.totals
        group = self.config.group_size
        lists = [(getattr(experience, name), getattr(fresh, name)) for name in LISTS]
        lists += [(experience.rewards[name], fresh.rewards[name]) for name in fresh.rewards]
        rows = [place * group + number for place in places for number in range(group)]
        lengths = experience.lengths
        self.dropped_tokens += sum(lengths[row] for row in rows)
        for old, new in lists:
            for row, value in zip(rows, new or ()):
                old[row] = value

    def reference_logps(self, experience: Experience):
        """Only once it is settled which groups stay."""
        return None if experience.totals is None else super().reference_logps(experience)

    def train(self, after_rollout: Callable = lambda *_: False):
        super().train(lambda *news: any([self.is_spent(), after_rollout(*news)]))

    def is_spent(self) -> bool:
        """Is no rollout left? The one that has just been learned from is then the last."""
        config = self.config
        spent = self.drawn + config.questions * config.group_size > self.budget
        if spent:
            self.config = replace(config, rollouts=self.step // config.minibatches)
        return spent

    def follow_gradient(self, sums: Counter) -> dict[str, float]:
        return super().follow_gradient(sums) | {"drawn": float(self.drawn)}

    def flops(self, experience: Experience) -> int:
        """The answers that were dropped had to be sampled, too."""
        dropped = SAMPLING_FLOPS * self.policy.model.num_parameters() * self.dropped_tokens
        return super().flops(experience) + dropped

    def save(self, run, notes: dict):
        super().save(run, {**notes, "drawn": self.drawn})

    def restore(self, checkpoint) -> dict:
        notes = super().restore(checkpoint)
        self.drawn = notes.pop("drawn")
        self.is_spent()
        return notes


class DAPO(MaskedTruncation, DynamicSampling):
    """DAPO whole, with `LossConfig(clip_high=0.28, beta=0.0)` and the reward `soft_overlong`."""
