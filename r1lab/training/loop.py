"""Group relative policy optimization: the loop, and one update of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from r1lab.errors import InputError
from r1lab.models.lora import merged, own_parameters, plain_model, sharing_copy
from r1lab.models.policy import Policy, completion_columns, refuse_sharing
from r1lab.objective import group_advantages, loss_normalizer, policy_loss
from r1lab.sampling import build_sampler
from r1lab.task import Task
from r1lab.training.batching import own_batches, own_groups, pad_rows
from r1lab.training.checkpoint import restore, save_checkpoint
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World, arithmetic, clip_gradients
from r1lab.training.rollout import Experience, Row, gathered, sampled


class Learner:
    """The weights that change, and the step they are at: all the state that a run has.

    A subclass is another way to learn, given to `grpo` as its `learner`: it may judge each token
    (`advantages_of`), add another loss (`add_loss`) or sample from another policy (`lags`).

    Attributes:
        lags: the sampler holds other weights than the policy's, on purpose: its model stands apart,
            and the policy scores the samples again.
    Args:
        loss: a function with the signature of `objective.policy_loss`, to try another objective.
    Raises:
        InputError: settings that cannot train with this number of processes.
    """

    lags = False

    def __init__(
        self, config: GRPOConfig, task: Task, policy: Policy, tokenizer, world: World,
        loss: Callable = policy_loss,
    ):  # fmt: skip
        config.check(world.size)
        self.config, self.task, self.policy, self.tokenizer = config, task, policy, tokenizer
        self.world, self.loss, self.step, self.skipped_in_a_row = world, loss, 0, 0
        if config.share_prompts:
            refuse_sharing(policy.model)
        self.reading = (config.temperature, config.pack, config.share_prompts)  # see `Policy.forward`
        model, vllm = plain_model(policy.model), config.vllm  # which holds weights of its own
        self.dtype = policy.precision = arithmetic(config.precision)
        if config.sampler == "torch":
            model = world.sampling_copy(model, self.dtype, apart=self.lags)
        elif vllm.dtype == "auto":
            vllm = replace(vllm, dtype=str(self.dtype).removeprefix("torch."))
        self.sampler = build_sampler(config.sampler, model, tokenizer, vllm)
        self.modules = {}  # beside the policy in checkpoints
        if config.loss.beta > 0:
            self.modules["reference"] = sharing_copy(policy)
        self.trained, self.optimizers = {}, {}
        self.optimizer = self.place("optimizer", policy, config.learning_rate)
        for module in self.modules.values():
            world.place(module, trained=False, dtype=self.dtype)

    def place(self, name: str, module: nn.Module, rate: float) -> torch.optim.Optimizer:
        """Put a module where it is trained; its optimizer, which checkpoints hold by this name."""
        self.trained[name] = self.world.place(module, dtype=self.dtype)
        self.optimizers[name] = torch.optim.AdamW(
            own_parameters(module).values(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        return self.optimizers[name]

    def train(self, after_rollout: Callable = lambda *_: False):
        """The algorithm box of GRPO, from `self.step` on.

        Args:
            after_rollout: gets the rollout's number, its experience and the metrics of its
                updates; True ends the run.
        """
        config, first = self.config, self.step // self.config.minibatches
        for rollout in range(first, config.rollouts):
            problems = self.task.draw(config.seed, rollout, config.questions)
            self.refresh_sampler()
            with sampled(self, problems) as (experience, reward):  # [questions × group] completions
                drift = self.rescore(experience)
                experience.ref_logps = self.reference_logps(experience)
                reward()  # [questions, group]; graded meanwhile, where that is asked for
            experience.advantages = self.advantage(experience)  # [questions, group]
            updates = []
            for rows in experience.minibatches(config.minibatches):
                sums = self.add_loss(experience, rows)  # [rows, column] in micro-batches
                updates.append(self.follow_gradient(sums) | drift)
                self.step += 1
                self.refresh_reference()
            if after_rollout(rollout, experience, updates):
                return

    def rescore(self, experience: Experience) -> dict[str, float]:
        """Where the sampler is not the policy: put the policy's own log-probs beside the sampler's.

        Returns what the sampler cost and how far it was off (nats per token), for the metrics.
        A sampler that `lags` is as far off as the policy has gone since: that has no limit, but at
        first neither has gone anywhere.

        Raises:
            InputError: so far that the sampler cannot hold the policy's weights.
        """
        config, limit = self.config, self.config.vllm.drift_limit
        if not (config.rescores or self.lags):
            return {}
        experience.rollout_logps = experience.old_logps
        rescored = self.scored(self.policy, experience)
        experience.old_logps = [logps.cpu() for logps in gathered(self.world, rescored)]
        apart = (torch.cat(experience.old_logps) - torch.cat(experience.rollout_logps)).abs()
        drift = {"drift_mean": apart.mean().item(), "drift_max": apart.max().item()}
        if (self.step == 0 or not self.lags) and not drift["drift_mean"] <= limit:
            raise InputError(
                f"the sampler's log-probs are {drift['drift_mean']:.2g} nats per token from the "
                f"policy's, and {limit:g} is allowed (vllm.drift_limit): it did not take over the "
                "weights, or computes too coarsely; give precision (and vllm.dtype) float32."
            )
        if config.sampler == "vllm":
            drift["weights_seconds"] = self.sampler.weights_seconds
        return drift

    def reference_logps(self, experience: Experience) -> dict[int, Row] | None:
        """Log-probs under the reference policy, where there is one: see `scored`."""
        reference = self.modules.get("reference")
        return self.scored(reference, experience) if reference else None

    def advantage(self, experience: Experience) -> Float[Tensor, "questions group"]:
        """How much better each completion is than its group (R1 v2 eq. 3)."""
        return group_advantages(experience.totals, divide_by_std=self.config.divide_by_std)

    def advantages_of(
        self, experience: Experience, rows: list[int], columns: int
    ) -> Float[Tensor, " rows"] | Float[Tensor, "rows columns"]:
        """Those of some rows, as the loss takes them: one for each completion, or one for each token."""
        return experience.advantages.flatten()[rows]

    def add_loss(self, experience: Experience, rows: list[int]) -> Counter:
        """Add the gradient of the loss over the given rows of all processes.

        Returns sums over this process's share of the rows, for the metrics.
        """
        config, sums = self.config, Counter(loss=0.0, tokens=0)
        lengths = [len(experience.completion_ids[row]) for row in rows]
        normalizer = loss_normalizer(config.loss.aggregation, lengths, config.cap(self.step))
        for batch, ids, completion, mask in self.batches(experience, rows, self.policy):

            def columns(logps: list | dict | None) -> Float[Tensor, "rows column"] | None:
                return logps and pad_sequence([logps[row] for row in batch], True).to(ids.device)

            advantages = self.advantages_of(experience, batch, mask.shape[1])
            out = self.policy(ids, completion, *self.reading)
            loss, metrics = self.loss(
                out.logp, columns(experience.old_logps), columns(experience.ref_logps),
                advantages.to(ids.device), mask, config.loss,
                rollout_logps=columns(experience.rollout_logps), normalizer=normalizer,
            )  # fmt: skip
            loss.backward()
            numbers = {"loss": loss, "entropy": out.entropy.sum(), **metrics}
            highest = max(sums["ratio_max"], metrics["ratio_max"].item())
            sums.update({name: value.item() for name, value in numbers.items()})
            sums["ratio_max"] = highest
        return sums

    def follow_gradient(self, sums: Counter) -> dict[str, float]:
        """One step along the gradients summed over the processes; metrics from their sums."""
        config, total = self.config, Counter()
        rate = config.learning_rate * min(1.0, (self.step + 1) / max(1, config.warmup_steps))
        self.optimizer.param_groups[0]["lr"] = rate
        norm = {name: self.descend(name) for name in self.trained}["optimizer"]  # the policy's
        self.skipped_in_a_row = 0 if norm.isfinite() else self.skipped_in_a_row + 1
        if self.skipped_in_a_row >= config.skipped_limit:
            raise InputError(
                f"the loss was not a number in {self.skipped_in_a_row} updates in a row (step {self.step}); "
                f"lower the learning rate (now {rate:g}) and resume from the last checkpoint."
            )
        parts = self.world.gather(sums)
        for part in parts:
            total.update(part)
        tokens = max(1.0, total.pop("tokens"))
        means = {name: total[name] / tokens for name in ("entropy", "kl", "clip_fraction")}
        return {
            **total, **means, "ratio_max": max(part["ratio_max"] for part in parts),
            "grad_norm": norm.item(), "lr": rate, "skipped": float(not norm.isfinite()),
        }  # fmt: skip

    def descend(self, name: str) -> Float[Tensor, ""]:
        """One optimizer's step, unless the gradient is not a number; its norm before clipping."""
        module, optimizer = self.trained[name], self.optimizers[name]
        self.world.sum_gradients(module)
        norm = clip_gradients(module, self.config.max_grad_norm)
        if norm.isfinite():
            optimizer.step()
        optimizer.zero_grad()
        return norm

    def flops(self, experience: Experience) -> int:
        """Floating-point operations of a rollout and its updates."""
        tokens = sum(experience.lengths)
        if self.config.share_prompts:  # a group reads its prompt once
            group = self.config.group_size
            tokens -= sum(map(len, experience.prompt_ids)) * (group - 1) // group
        return self.config.flops(self.policy.model.num_parameters(), tokens)

    def refresh_reference(self):
        """Now and then the reference policy becomes the policy (v2 section 2.1)."""
        if "reference" in self.modules and self.step % self.config.reference_every == 0:
            self.modules["reference"].load_state_dict(self.policy.state_dict())

    def refresh_sampler(self):
        """Before each rollout: sample from the policy as it is now."""
        self.sample_from(self.policy)

    def sample_from(self, policy: Policy):
        """Give the sampler the weights of this policy."""
        whole = self.world.full_parameters(policy, self.dtype)
        self.sampler.load_weights(merged(whole, self.config.lora))

    def save(self, run: Path, notes: dict):
        """Write a checkpoint with what a resumed run needs, and `notes`; for every process."""
        save_checkpoint(
            self.world, run, self.step, self.policy, self.tokenizer, {"step": self.step, **notes},
            self.optimizers, self.modules,
        )  # fmt: skip

    def restore(self, checkpoint: Path) -> dict:
        """Go on from a checkpoint whose policy this learner was made with; returns the notes."""
        notes = restore(checkpoint, self.optimizers, self.modules)
        self.step = notes.pop("step")
        return notes

    @torch.no_grad()
    def scored(
        self, module: nn.Module, experience: Experience, minibatches: int = 0
    ) -> dict[int, Row]:
        """By row, what a module says of each token (a policy its log-prob), without gradients.

        Of the rows that this process works on where there are so many mini-batches; 0: that it trains on.
        """
        by_row, reading = {}, self.reading if isinstance(module, Policy) else ()
        for rows in experience.minibatches(minibatches or self.config.minibatches):
            for batch, ids, completion, mask in self.batches(experience, rows, module):
                out = module(ids, completion, *reading)
                said = getattr(out, "logp", out)
                by_row |= {row: said[i][mask[i]] for i, row in enumerate(batch)}
        return by_row

    def batches(self, experience: Experience, rows: Sequence[int], module: nn.Module) -> Iterator:
        """This process's share of the rows in micro-batches, each to go through `module`.

        Of each: its rows; ids and which of them are completion, [rows, seq]; and which columns of
        log-probs are tokens, [rows, column].
        """
        if self.config.share_prompts and isinstance(module, Policy):
            shares = own_groups(self.config, self.world, experience, rows)
        else:
            shares = own_batches(self.config, self.world, experience.lengths, rows)
        for batch in self.world.in_step(shares, module):
            prompts = [experience.prompt_ids[row] for row in batch]
            completions = [experience.completion_ids[row] for row in batch]
            ids, completion = pad_rows(prompts, completions, self.tokenizer.pad_token_id)
            ids, completion = ids.to(self.world.device), completion.to(self.world.device)
            yield batch, ids, completion, completion_columns(completion)[1]
