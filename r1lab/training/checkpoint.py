"""Checkpoints that are whole or absent: a kill at any moment leaves the last one readable.

A folder holds the policy in Hugging Face format, the trainer's state, and in the folder `shards` the
tensors of optimizers and further modules, as the processes held them. Any number of processes reads them.
"""

import shutil
import warnings
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn

from r1lab.errors import InputError, reason
from r1lab.files import whole
from r1lab.models.lora import own_parameters
from r1lab.models.policy import Policy, save_model
from r1lab.run import Run
from r1lab.training.distributed import World

warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process writes without it

KEPT = 2  # the newest ones, beside the best; one more than needed, in case the disk spoils the newest
SHARDS = "shards"
Optimizers = dict[str, torch.optim.Optimizer]
Modules = dict[str, nn.Module]


def checkpoint_path(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:06d}"


def save_checkpoint(
    world: World, run: Path, step: int, policy: Policy, tokenizer, state: dict,
    optimizers: Optimizers = {}, modules: Modules = {},
) -> Path:  # fmt: skip
    """Write a checkpoint and make it appear at once; called on every process.

    The first process writes. Where each holds a share of the weights, all of them write their shares,
    and the first one also the whole policy, for everybody else.

    Args:
        state: what else `restore` is to return; torch.save takes it.
        modules: what is trained or asked besides the policy (the reference).
    Raises:
        InputError: on every process, if it cannot be written.
    """
    final = checkpoint_path(run, step)
    sharded = world.parallel.shard
    trouble = None
    weights = None
    partial = final.with_name(f".{final.name}.partial")  # as `whole` names it
    try:
        with whole(final) if world.is_main else nullcontext():
            world.gather(None)  # nobody writes before an earlier attempt is gone
            if sharded or world.is_main:
                tensors = _tensors(optimizers, modules)
                dcp.save(tensors, checkpoint_id=partial / SHARDS, no_dist=not sharded)
            if sharded:
                parameters = world.full_parameters(policy, torch.float32)
                weights = {name: value.cpu() for name, value in parameters if world.is_main}
            if world.is_main:
                save_model(policy.model, tokenizer, partial, state_dict=weights)
                torch.save(state, partial / "trainer.pt")
        if world.is_main:
            earlier = Run(run)
            for old in {*earlier.checkpoints[:-KEPT]} - {earlier.best}:
                shutil.rmtree(old)
    except (OSError, dcp.api.CheckpointException) as error:
        trouble = reason(error)
    if failures := [one for one in world.gather(trouble) if one]:
        raise InputError(
            f"the checkpoint of step {step} could not be written ({failures[0]}); free some space and "
            "continue with --resume: the run is whole up to its last checkpoint."
        )
    return final


def restore(checkpoint: Path, optimizers: Optimizers, modules: Modules) -> dict:
    """Put optimizers and modules back as they were, on every process; returns the trainer's state.

    Raises:
        InputError: a file is missing or damaged.
    """
    try:
        state = torch.load(checkpoint / "trainer.pt", weights_only=True)
        dcp.load(
            _tensors(optimizers, modules), checkpoint_id=checkpoint / SHARDS,
            no_dist=not dist.is_initialized(),
        )  # fmt: skip
    except (Exception, dcp.api.CheckpointException) as error:  # a damaged file raises many kinds
        raise InputError(
            f"{checkpoint}: a file is missing or damaged; delete this checkpoint to continue from the "
            f"one before ({type(error).__name__}: {error})."
        ) from error
    return state


def _tensors(optimizers, modules):
    """All tensors of optimizers (AdamW) and modules by name, the very ones that these work with."""
    tensors = {}
    for name, optimizer in optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, parameter in enumerate(parameters):
            parts = optimizer.state[parameter]
            if not parts:  # before its first step
                parts["step"] = torch.zeros((), device=parameter.device)
                parts |= {part: torch.zeros_like(parameter) for part in ("exp_avg", "exp_avg_sq")}
            tensors |= {f"{name}.{number}.{part}": value for part, value in parts.items()}
    for name, module in modules.items():
        tensors |= {f"{name}.{part}": p.detach() for part, p in own_parameters(module).items()}
    return tensors
