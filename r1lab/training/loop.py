"""Group relative policy optimisation: the loop, and one update of it."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from r1lab.errors import InputError
from r1lab.grpo import groups_that_differ, loss_normalizer, policy_loss
from r1lab.models.policy import Policy
from r1lab.rewards import RewardSet
from r1lab.sampling import build_sampler
from r1lab.task import Problem
from r1lab.training.batching import balanced_share, pad_columns, pad_rows
from r1lab.training.checkpoint import restore
from r1lab.training.config import GRPOConfig
from r1lab.training.demonstrations import Demonstrations
from r1lab.training.distributed import World, clip_gradients
from r1lab.training.experience import Experience, Samples, collect
from r1lab.training.packing import batching


class Learner:
    """The weights that change, and the step they are at: all the state that a run has."""

    def __init__(self, config: GRPOConfig, policy: Policy, tokenizer, world: World):
        self.config, self.policy, self.tokenizer, self.world = config, policy, tokenizer, world
        model, vllm = policy.model, config.vllm
        if config.sampler == "torch":  # vLLM holds weights of its own
            model = world.sampling_copy(model, apart=config.lag > 0)
        elif config.parallel.shard and vllm.dtype == "auto":
            vllm = replace(vllm, dtype=config.parallel.precision)
        self.sampler = build_sampler(config.sampler, model, tokenizer, vllm)
        self.reference = copy.deepcopy(policy).requires_grad_(False)
        self.demonstrations = Demonstrations(config, policy.model, tokenizer)
        world.agree("demonstrations", self.demonstrations.documents)
        # The policy as it was 1, 2 ... rollouts ago.
        self.earlier = [copy.deepcopy(self.reference) for _ in range(config.lag)]
        world.place(policy)
        for frozen in (self.reference, *self.earlier):
            world.place(frozen, trained=False)
        self.optimizer = torch.optim.AdamW(
            policy.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0,
            fused=True,
        )  # fmt: skip
        # A checkpoint holds them beside the policy.
        self.modules = {"reference": self.reference}
        self.modules |= {f"earlier_{ago}": one for ago, one in enumerate(self.earlier, 1)}
        self.optimizers = {"optimizer": self.optimizer}
        self.step = 0
        self.skipped_in_a_row = 0

    def train(
        self,
        questions: Callable[[int], list[Problem]],
        rewards: RewardSet,
        after_rollout: Callable[[int, Experience, list[dict]], bool],
    ) -> None:
        """The algorithm box of GRPO, from `self.step` on.

        Args:
            questions: the problems of a rollout, by its number.
            after_rollout: told the rollout, its experience and the metrics of its updates; True
                ends the run.
        """
        config, first = self.config, self.step // self.config.minibatches
        self.world.agree("settings and questions", (config, questions(first)))
        for rollout in range(first, config.rollouts):
            self.refresh_sampler()
            with collect(
                config, questions(rollout), self.sampler, self.tokenizer, rewards, self.world,
                rollout, config.cap(self.step),
            ) as (samples, graded):  # fmt: skip
                samples, drift = self.rescore(samples)  # while the last grades arrive
                ref_logps = self.reference_logps(samples)
                experience = self.credit(graded(samples))
            updates = []
            for number in range(config.minibatches):
                rows = experience.minibatch_rows(number, config.minibatches)
                updates.append(self.update(experience, ref_logps, rows) | drift)
                self.step += 1
                if self.step % config.reference_every == 0:
                    self.reference.load_state_dict(self.policy.state_dict())
            if after_rollout(rollout, experience, updates):
                return

    def rescore(self, samples: Samples) -> tuple[Samples, dict[str, float]]:
        """Where the sampler is not the policy: the policy's own log-probs beside the sampler's.

        A sampler that lags is as far off as the policy has gone since: that has no limit, but at
        first neither has gone anywhere.

        Returns the samples, and what the sampler cost and how far it was off, for the metrics.

        Raises:
            InputError: so far that the sampler cannot hold the policy's weights.
        """
        config = self.config
        if config.sampler == "torch" and config.lag == 0:
            return samples, {}
        shares = self.world.gather(self.scored(self.policy, samples))
        own = {row: logps.cpu() for share in shares for row, logps in share.items()}
        samples = replace(
            samples, old_logps=[own[row] for row in sorted(own)],
            rollout_logps=samples.old_logps,
        )  # fmt: skip
        as_policy = config.lag == 0 or self.step == 0
        drift = sampler_drift(samples, config.vllm.drift_limit if as_policy else math.inf)
        if config.sampler == "vllm":
            drift["weights_seconds"] = self.sampler.weights_seconds
        return samples, drift

    def credit(self, experience: Experience) -> Experience:
        """Where a learner gives other advantages than the group's."""
        return experience

    def refresh_sampler(self) -> None:
        """Before each rollout: sample from the policy as it was `lag` rollouts before."""
        line = [self.policy, *self.earlier]
        self.sample_from(line[-1])
        for newer, older in reversed(list(pairwise(line))):
            older.load_state_dict(newer.state_dict())

    def sample_from(self, policy: Policy) -> None:
        """Give the sampler the weights of this policy."""
        self.sampler.load_weights(self.world.full_parameters(policy))

    def save(self, run: Path, notes: dict) -> None:
        """Write a checkpoint with what a resumed run needs, and `notes`; for every process."""
        self.world.save(
            run, self.step, self.policy, self.tokenizer, {"step": self.step, **notes},
            self.optimizers, self.modules,
        )  # fmt: skip

    def restore(self, checkpoint: Path) -> dict:
        """Go on from a checkpoint whose policy this learner was made with; returns the notes."""
        notes = restore(checkpoint, self.optimizers, self.modules)
        self.step = notes.pop("step")
        return notes

    def update(
        self, experience: Experience, ref_logps: dict[int, Tensor], rows: list[int]
    ) -> dict[str, float]:
        """One optimizer step on the given rows of all processes."""
        config = self.config
        lengths = [len(experience.completion_ids[row]) for row in rows]
        normalizer = loss_normalizer(config.loss.aggregation, lengths, config.cap(self.step))
        sums = dict.fromkeys(("loss", "tokens", "entropy", "kl", "clip_fraction", "ratio_max"), 0.0)
        batches = self._batches(experience, rows)
        for batch in self.world.in_step(batches, self.policy):
            out, mask = self._score(self.policy, experience, batch)
            width = mask.shape[1]
            loss, metrics = policy_loss(
                out.logp,
                pad_columns([experience.old_logps[row] for row in batch], width).to(out.logp),
                pad_columns([ref_logps[row] for row in batch], width).to(out.logp)
                if config.loss.beta > 0
                else None,
                experience.advantages_of(batch, width).to(out.logp),
                mask,
                config.loss,
                rollout_logps=None
                if experience.rollout_logps is None
                else pad_columns([experience.rollout_logps[row] for row in batch], width).to(
                    out.logp
                ),
                normalizer=normalizer,
            )
            loss.backward()
            sums["loss"] += loss.item()
            sums["entropy"] += out.entropy.sum().item()
            for name in ("tokens", "kl", "clip_fraction"):
                sums[name] += metrics[name].item()
            sums["ratio_max"] = max(sums["ratio_max"], metrics["ratio_max"].item())
        shown = self.demonstrations.add_gradient(self.policy, self.world, self.step)
        return self._apply(sums) | shown

    def _apply(self, sums: dict[str, float]) -> dict[str, float]:
        """Sum gradients over the processes and step, unless the loss is not a number."""
        self.world.sum_gradients(self.policy)
        parts = self.world.gather(sums)
        total = {name: sum(part[name] for part in parts) for name in sums}
        total["ratio_max"] = max(part["ratio_max"] for part in parts)
        norm = clip_gradients(self.policy, self.config.max_grad_norm)
        rate = self.config.learning_rate * min(1.0, (self.step + 1) / self.config.warmup_steps)
        finite = bool(torch.isfinite(norm)) and total["loss"] == total["loss"]
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        self.optimizer.zero_grad()
        if self.skipped_in_a_row >= self.config.skipped_limit:
            raise InputError(
                f"the loss was not a number in {self.skipped_in_a_row} updates in a row (step "
                f"{self.step}); lower the learning rate (now {rate:g}) and resume from the last "
                "checkpoint."
            )
        tokens = max(1.0, total["tokens"])
        means = {name: total[name] / tokens for name in ("entropy", "kl", "clip_fraction")}
        return {
            **means, "loss": total["loss"], "ratio_max": total["ratio_max"],
            "grad_norm": norm.item(), "lr": rate, "skipped": float(not finite),
        }  # fmt: skip

    def reference_logps(self, samples: Samples) -> dict[int, Tensor]:
        """Log-probs under the reference policy, for the rows that this process will train on."""
        return {} if self.config.loss.beta == 0 else self.scored(self.reference, samples)

    def scored(self, policy: Policy, samples: Samples) -> dict[int, Tensor]:
        """By row, the log-probs under a policy, for the rows that this process will train on."""
        logps: dict[int, Tensor] = {}
        for number in range(self.config.minibatches):
            rows = samples.minibatch_rows(number, self.config.minibatches)
            batches = self._batches(samples, rows)
            for batch in self.world.in_step(batches, policy):
                with torch.no_grad():
                    out, mask = self._score(policy, samples, batch)
                for row, values, inside in zip(batch, out.logp, mask, strict=True):
                    logps[row] = values[inside]
        return logps

    def _batches(self, samples: Samples, rows: list[int]) -> list[list[int]]:
        """This process's share of the rows, in micro-batches."""
        lengths = samples.lengths
        own = balanced_share([lengths[row] for row in rows], self.world.rank, self.world.size)
        cut = batching(self.config.pack)
        return cut(lengths, [rows[i] for i in own], self.config.microbatch_tokens)

    def _score(self, policy: Policy, samples: Samples, batch: list[int]):
        """Log-probs of a micro-batch, and which of its columns are tokens."""
        ids, mask = self._pad(samples, batch)
        out = policy(ids, mask, self.config.temperature, self.config.pack)
        columns = torch.arange(out.logp.shape[1], device=ids.device)
        return out, columns < mask.sum(1)[:, None]

    def _pad(self, samples: Samples, batch: list[int]) -> tuple[Tensor, Tensor]:
        """Ids and completion mask of a micro-batch, on the policy's device."""
        ids, mask = pad_rows(
            [samples.prompt_ids[row] for row in batch],
            [samples.completion_ids[row] for row in batch],
            self.tokenizer.pad_token_id,
        )
        return ids.to(self.world.device), mask.to(self.world.device)


def sampler_drift(samples: Samples, limit: float) -> dict[str, float]:
    """How far the sampler's log-probs are from the policy's, in nats per token: mean and largest.

    Raises InputError where the mean is above `limit`: these samples are of other weights.
    """
    apart = (torch.cat(samples.old_logps) - torch.cat(samples.rollout_logps)).abs()
    drift = {"drift_mean": apart.mean().item(), "drift_max": apart.max().item()}
    if not drift["drift_mean"] <= limit:
        raise InputError(
            f"the sampler's log-probs are {drift['drift_mean']:.2g} nats per token from the "
            f"policy's, and {limit:g} is allowed (vllm.drift_limit): it did not take over the "
            "weights, or computes too coarsely; sample in float32, or with the torch sampler."
        )
    return drift


def group_statistics(experience: Experience) -> dict[str, float]:
    """What the rewards of a rollout look like."""
    differ = groups_that_differ(experience.totals).float().mean().item()
    parts = {
        f"reward/{name}": _mean([value for value in values if value is not None])
        for name, values in experience.rewards.items()
    }
    return {
        "reward": experience.totals.nanmean().item(),
        **parts,
        "zero_std_groups": 1 - differ,
        "truncated": _mean([finish == "length" for finish in experience.finish]),
        "tokens_mean": _mean([len(ids) for ids in experience.completion_ids]),
    }


def _mean(values: list) -> float:
    return sum(values) / max(1, len(values))
