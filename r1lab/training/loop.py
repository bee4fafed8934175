"""Group relative policy optimization: the loop, and one update of it."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from r1lab.errors import InputError
from r1lab.objective import groups_that_differ, loss_normalizer, policy_loss
from r1lab.models.policy import Policy
from r1lab.sampling import build_sampler
from r1lab.task import Task
from r1lab.training.batching import own_batches, pad_columns, pad_rows
from r1lab.training.checkpoint import restore
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World, clip_gradients
from r1lab.training.rollout import Experience, Samples, sampled, with_advantages

SUMMED = ("loss", "tokens", "entropy", "kl", "clip_fraction")  # over tokens, batches and processes
AfterRollout = Callable[[int, Experience, list[dict]], bool]


@dataclass(frozen=True)
class Batch:
    """What one micro-batch gives to `policy_loss`; rows are completions, columns their tokens.

    `advantages` has one number a row, or one a token where a critic gave them.
    """

    ids: Int[Tensor, "rows seq"]
    completion: Bool[Tensor, "rows seq"]
    mask: Bool[Tensor, "rows column"]
    old_logps: Float[Tensor, "rows column"]
    ref_logps: Float[Tensor, "rows column"] | None
    rollout_logps: Float[Tensor, "rows column"] | None
    advantages: Float[Tensor, " rows"] | Float[Tensor, "rows column"]


class Learner:
    """The weights that change, and the step they are at: all the state that a run has.

    Args:
        loss: a function with the signature of `objective.policy_loss`, to try another objective.
    Raises:
        InputError: settings that cannot train with this number of processes.
    """

    def __init__(
        self, config: GRPOConfig, task: Task, policy: Policy, tokenizer, world: World,
        loss: Callable = policy_loss,
    ):  # fmt: skip
        config.check(world.size)
        self.config, self.task, self.policy, self.tokenizer = config, task, policy, tokenizer
        self.world, self.loss = world, loss
        self.sampler = self._sampler()
        self.modules: dict[str, torch.nn.Module] = {}  # a checkpoint holds them beside the policy
        if config.loss.beta > 0:
            self.modules["reference"] = copy.deepcopy(policy).requires_grad_(False)
        # The policy as it was 1, 2 ... rollouts ago.
        self.earlier = [copy.deepcopy(policy).requires_grad_(False) for _ in range(config.lag)]
        self.modules |= {f"earlier_{ago}": one for ago, one in enumerate(self.earlier, 1)}
        world.place(policy)
        for frozen in self.modules.values():
            world.place(frozen, trained=False)
        self.optimizer = torch.optim.AdamW(
            policy.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0,
            fused=True,
        )  # fmt: skip
        self.optimizers = {"optimizer": self.optimizer}
        self.step = 0
        self.skipped_in_a_row = 0

    def train(self, after_rollout: AfterRollout = lambda *_: False) -> None:
        """The algorithm box of GRPO, from `self.step` on.

        Args:
            after_rollout: gets the rollout, its experience and the metrics of its updates; True
                ends the run.
        """
        config, first = self.config, self.step // self.config.minibatches
        problems = self.task.draw(config.seed, first, config.questions)
        self.world.agree("settings and questions", (config, problems))
        for rollout in range(first, config.rollouts):
            problems = self.task.draw(config.seed, rollout, config.questions)
            self.refresh_sampler()
            with self.sample(problems) as (samples, reward):  # [questions × group] completions
                samples, drift = self.rescore(samples)
                ref_logps = self.reference_logps(samples)
                rewards = reward()  # [questions × group]; graded meanwhile, where that is asked for
            experience = self.advantage(samples, rewards)  # [questions, group]
            updates = []
            for number in range(config.minibatches):
                rows = experience.minibatch_rows(number, config.minibatches)
                updates.append(self.update(experience, ref_logps, rows) | drift)
                self.step += 1
                self.refresh_reference()
            if after_rollout(rollout, experience, updates):
                return

    def sample(self, problems: list):
        """A group of completions for each problem, and what waits for their rewards."""
        return sampled(
            self.config, self.task, problems, self.sampler, self.tokenizer, self.world, self.step
        )

    def advantage(self, samples: Samples, rewards: dict[str, list]) -> Experience:
        """How much better each completion is than its group (R1 v2 eq. 3)."""
        return with_advantages(self.config, samples, rewards)

    def update(
        self, experience: Experience, ref_logps: dict[int, Tensor], rows: list[int]
    ) -> dict[str, float]:
        """One optimizer step on the given rows of all processes; its metrics."""
        config = self.config
        lengths = [len(experience.completion_ids[row]) for row in rows]
        normalizer = loss_normalizer(config.loss.aggregation, lengths, config.cap(self.step))
        sums = dict.fromkeys((*SUMMED, "ratio_max"), 0.0)
        for own in self.world.in_step(self._batches(experience, rows), self.policy):
            batch = self._batch(experience, ref_logps, own)
            out = self.policy(batch.ids, batch.completion, config.temperature, config.pack)
            loss, metrics = self.loss(
                out.logp, batch.old_logps, batch.ref_logps, batch.advantages, batch.mask, config.loss,
                rollout_logps=batch.rollout_logps, normalizer=normalizer,
            )  # fmt: skip
            loss.backward()  # adds to the gradient
            sums["loss"] += loss.item()
            sums["entropy"] += out.entropy.sum().item()
            for name in ("tokens", "kl", "clip_fraction"):
                sums[name] += metrics[name].item()
            sums["ratio_max"] = max(sums["ratio_max"], metrics["ratio_max"].item())
        more = self.add_gradient()
        return self._apply_gradient(sums) | more

    def add_gradient(self) -> dict[str, float]:
        """Where a learner adds the gradient of another loss; its metrics."""
        return {}

    def flops(self, experience: Experience) -> int:
        """Floating-point operations of a rollout and its updates."""
        return self.config.flops(self.policy.model.num_parameters(), sum(experience.lengths))

    def _apply_gradient(self, sums: dict[str, float]) -> dict[str, float]:
        """Sum gradients over the processes and step, unless the loss is not a number."""
        config = self.config
        self.world.sum_gradients(self.policy)
        parts = self.world.gather(sums)
        total = {name: sum(part[name] for part in parts) for name in sums}
        norm = clip_gradients(self.policy, config.max_grad_norm)
        rate = config.learning_rate * min(1.0, (self.step + 1) / max(1, config.warmup_steps))
        finite = bool(torch.isfinite(norm)) and total["loss"] == total["loss"]
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        self.optimizer.zero_grad()
        if self.skipped_in_a_row >= config.skipped_limit:
            raise InputError(
                f"the loss was not a number in {self.skipped_in_a_row} updates in a row (step "
                f"{self.step}); lower the learning rate (now {rate:g}) and resume from the last "
                "checkpoint."
            )
        tokens = max(1.0, total["tokens"])
        means = {name: total[name] / tokens for name in ("entropy", "kl", "clip_fraction")}
        return {
            **means, "loss": total["loss"], "ratio_max": max(part["ratio_max"] for part in parts),
            "grad_norm": norm.item(), "lr": rate, "skipped": float(not finite),
        }  # fmt: skip

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
        own: dict[int, Tensor] = {}
        for share in self.world.gather(self.scored(self.policy, samples)):
            own |= share
        samples = replace(
            samples, old_logps=[own[row].cpu() for row in sorted(own)],
            rollout_logps=samples.old_logps,
        )  # fmt: skip
        as_policy = config.lag == 0 or self.step == 0
        drift = sampler_drift(samples, config.vllm.drift_limit if as_policy else math.inf)
        if config.sampler == "vllm":
            drift["weights_seconds"] = self.sampler.weights_seconds
        return samples, drift

    def reference_logps(self, samples: Samples) -> dict[int, Tensor]:
        """Log-probs under the reference policy, for the rows that this process will train on."""
        reference = self.modules.get("reference")
        return self.scored(reference, samples) if reference else {}

    def refresh_reference(self) -> None:
        """Now and then the reference policy becomes the policy (v2 section 2.1)."""
        if "reference" in self.modules and self.step % self.config.reference_every == 0:
            self.modules["reference"].load_state_dict(self.policy.state_dict())

    def refresh_sampler(self) -> None:
        """Before each rollout: sample from the policy as it was `lag` rollouts before."""
        line = [self.policy, *self.earlier]
        self.sample_from(line[-1])
        for newer, older in reversed(list(pairwise(line))):
            older.load_state_dict(newer.state_dict())

    def sample_from(self, policy: Policy) -> None:
        """Give the sampler the weights of this policy."""
        self.sampler.load_weights(self.world.full_parameters(policy))

    def _sampler(self):
        """The sampler of the settings; vLLM holds weights of its own."""
        config, model, vllm = self.config, self.policy.model, self.config.vllm
        if config.sampler == "torch":
            model = self.world.sampling_copy(model, apart=config.lag > 0)
        elif config.parallel.shard and vllm.dtype == "auto":
            vllm = replace(vllm, dtype=config.parallel.precision)
        return build_sampler(config.sampler, model, self.tokenizer, vllm)

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

    def scored(self, policy: Policy, samples: Samples) -> dict[int, Tensor]:
        """By row, the log-probs under a policy, for the rows that this process will train on."""
        config = self.config
        logps: dict[int, Tensor] = {}
        for number in range(config.minibatches):
            rows = samples.minibatch_rows(number, config.minibatches)
            for own in self.world.in_step(self._batches(samples, rows), policy):
                ids, completion = self._pad(samples, own)
                with torch.no_grad():
                    out = policy(ids, completion, config.temperature, config.pack)
                for row, values, length in zip(own, out.logp, completion.sum(1), strict=True):
                    logps[row] = values[:length]
        return logps

    def _batches(self, samples: Samples, rows: list[int]) -> list[list[int]]:
        """This process's share of the rows, in micro-batches."""
        return own_batches(self.config, self.world, samples.lengths, rows)

    def _batch(self, experience: Experience, ref_logps: dict[int, Tensor], own: list[int]) -> Batch:
        """The rows of a micro-batch as tensors on the policy's device."""
        ids, completion = self._pad(experience, own)
        lengths = completion.sum(1)
        width = int(lengths.max())

        def columns(values: list[Tensor] | dict[int, Tensor]) -> Float[Tensor, "rows column"]:
            return pad_columns([values[row] for row in own], width).to(ids.device)

        rollout_logps = experience.rollout_logps
        return Batch(
            ids=ids,
            completion=completion,
            mask=torch.arange(width, device=ids.device) < lengths[:, None],
            old_logps=columns(experience.old_logps),
            ref_logps=columns(ref_logps) if ref_logps else None,
            rollout_logps=columns(rollout_logps) if rollout_logps is not None else None,
            advantages=experience.advantages_of(own, width).to(ids.device),
        )

    def _pad(self, samples: Samples, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Ids and completion mask of a micro-batch, on the policy's device."""
        ids, mask = pad_rows(
            [samples.prompt_ids[row] for row in rows],
            [samples.completion_ids[row] for row in rows],
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
