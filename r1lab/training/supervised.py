"""Learning from written documents: pre-training and supervised fine-tuning are this one loop.

They differ in where the documents come from, and in whether the prompt is learned, too.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from r1lab.models.lora import own_parameters
from r1lab.models.policy import Policy, load_model
from r1lab.training.batching import own_batches, pad_rows
from r1lab.training.checkpoint import restore, save_checkpoint
from r1lab.training.distributed import Parallel, Precision, World, arithmetic, clip_gradients
from r1lab.training.processes import Progress, StopRequest
from r1lab.run import MetricsLog, Run

Document = tuple[list[int], list[int]]  # ids of the prompt, ids of the completion


@dataclass(frozen=True)
class SupervisedConfig:
    """How documents are learned, whatever they are.

    Attributes:
        steps: optimizer steps.
        tokens_per_step: about so many, over all processes.
        final_share: of the learning rate, where the cosine ends (R1's SFT: 5e-5 to 5e-6, v2 B.4.2).
        learn_prompts: True for pre-training; fine-tuning learns the completions only.
        processes: 0 for one per core.
        checkpoint_every: steps.
        microbatch_tokens: with padding; 8,192 instead of 1,024 take half as long again, because
            activations leave the core's caches.
        pack: lay the rows of a micro-batch end to end instead of padding them (v2 B.1).
        precision: of the arithmetic; weights, gradients and the optimizer's state stay float32. "auto"
            is bfloat16 on machines that have instructions for it, else float32.
        parallel: how the model is spread over the processes.
    """

    steps: int
    tokens_per_step: int = 16_384
    learning_rate: float = 3e-3
    final_share: float = 0.0
    warmup_steps: int = 80
    weight_decay: float = 0.1
    learn_prompts: bool = True
    seed: int = 0
    processes: int = 0
    checkpoint_every: int = 200
    microbatch_tokens: int = 1_024
    pack: bool = False
    precision: Precision = "float32"
    parallel: Parallel = Parallel()


def learning_rate(config: SupervisedConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to `final_share` of the learning rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * (config.final_share + (1 - config.final_share) * cosine)


def document_loss(
    policy: Policy, ids: Int[Tensor, "rows seq"], mask: Bool[Tensor, "rows seq"],
    packed: bool = False,
) -> Float[Tensor, ""]:  # fmt: skip
    """Summed negative log-likelihood (nats) of the tokens in the mask."""
    return -policy(ids, mask, packed=packed).logp.sum()


def train_supervised(
    world: World, stop: StopRequest, run: Run, config: SupervisedConfig, model, tokenizer,
    documents: Callable[[int], list[Document]],
) -> bool:  # fmt: skip
    """Train `model`, or go on from the run's last checkpoint; metrics go to the run. False: stopped.

    Args:
        documents: the documents of a step, by its number; the same on every process.
    """
    saved = run.checkpoints
    if saved:
        model, _ = load_model(saved[-1], merged=False)
    policy = Policy(model).train()
    policy.precision = arithmetic(config.precision)
    world.place(policy, dtype=policy.precision)
    optimizer = torch.optim.AdamW(
        own_parameters(policy).values(), betas=(0.9, 0.95), weight_decay=config.weight_decay, fused=True
    )
    optimizers = {"optimizer": optimizer}
    done = restore(saved[-1], optimizers, {})["step"] if saved else 0
    world.agree("settings and documents", (config, documents(min(done, config.steps - 1))))
    log = MetricsLog(run.folder / "metrics.jsonl", done) if world.is_main else None
    with Progress(config.steps, run.name, done) as progress:
        for step in range(done, config.steps):
            started, pairs, rate = time.monotonic(), documents(step), learning_rate(config, step)
            if config.learn_prompts:  # all but the first token, which has no past
                pairs = [(prompt[:1], [*prompt[1:], *completion]) for prompt, completion in pairs]
            loss = add_gradient(config, policy, pairs, tokenizer, world)
            world.sum_gradients(policy)
            clip_gradients(policy, 1.0)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
            loss = sum(world.gather(loss))
            progress.show(step + 1, loss=f"{loss:.3f}")
            if log:
                seconds = round(time.monotonic() - started, 3)
                tokens = sum(len(prompt) + len(completion) for prompt, completion in pairs)
                row = {"kind": "train", "step": step + 1, "loss": loss, "lr": rate}
                log.write(row | {"tokens": tokens, "seconds": seconds})
            halt = world.any(stop.is_set())
            last = step + 1 == config.steps
            if last or halt or (step + 1) % config.checkpoint_every == 0:
                state = {"step": step + 1}
                save_checkpoint(world, run.folder, step + 1, policy, tokenizer, state, optimizers)
            if halt:
                return last
    return True


def add_gradient(
    config, policy: Policy, pairs: list[Document], tokenizer, world: World, weight: float = 1.0
) -> float:
    """Add `weight` times the gradient of the completions' mean loss per token to the policy's gradients.

    Each process adds that of its share of the documents; sums over the processes are the whole.

    Args:
        config: settings with `microbatch_tokens` and `pack`.
    Returns:
        This process's part of the mean loss (nats), without the weight.
    """
    lengths = [len(prompt) + len(completion) for prompt, completion in pairs]
    learned, total = sum(len(completion) for _, completion in pairs), 0.0
    batches = own_batches(config, world, lengths, range(len(lengths)))
    for rows in world.in_step(batches, policy):
        ids, mask = pad_rows(*zip(*(pairs[row] for row in rows)), tokenizer.pad_token_id)
        loss = document_loss(policy, ids.to(world.device), mask.to(world.device), config.pack) / learned
        (weight * loss).backward()
        total += loss.item()
    return total
