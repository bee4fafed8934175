"""Checkpoints that are whole or absent: a kill at any moment leaves the last one readable.

A folder holds the policy in Hugging Face format, the trainer's state, and optimizers and further
modules: in whole files, or, written by processes that hold a share each, in the folder `shards`.
Any number of processes reads both kinds.
"""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from r1lab.errors import InputError, reason
from r1lab.files import whole
from r1lab.models.lora import own_parameters
from r1lab.models.policy import Policy, save_model
from r1lab.run import Run
from r1lab.training.distributed import World

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

    The first process writes whole files. Where each holds a share of the weights, all of them write
    their shares, and the first one also the whole policy, for everybody else.

    Args:
        state: what else `restore` is to return; torch.save takes it.
        modules: what is trained or asked besides the policy (the reference).
    Raises:
        InputError: on every process, if it cannot be written.
    """
    final, trouble, weights = checkpoint_path(run, step), None, None
    partial = final.with_name(f".{final.name}.partial")  # as `whole` names it
    try:
        with whole(final) if world.is_main else nullcontext():
            world.gather(None)  # nobody writes before an earlier attempt is gone
            if world.parallel.shard:
                dcp.save(_tensors(optimizers, modules), checkpoint_id=partial / SHARDS)
                parameters = world.full_parameters(policy, torch.float32)
                weights = {name: value.cpu() for name, value in parameters if world.is_main}
            elif world.is_main:
                partial.mkdir(parents=True)
                state = state | {name: one.state_dict() for name, one in optimizers.items()}
                for name, module in modules.items():
                    parts = {part: p.detach().contiguous() for part, p in own_parameters(module).items()}
                    save_file(parts, partial / f"{name}.safetensors")
            if world.is_main:
                save_model(policy.model, tokenizer, partial, state_dict=weights)
                torch.save(state, partial / "trainer.pt")
                for file in partial.rglob("*"):
                    _to_disk(file)
        if world.is_main:
            _to_disk(final.parent)
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


def _to_disk(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def restore(checkpoint: Path, optimizers: Optimizers, modules: Modules) -> dict:
    """Put optimizers and modules back as they were, on every process; returns the trainer's state.

    Raises:
        InputError: a file is missing or damaged.
    """
    tensors, stored = _tensors(optimizers, modules), {}
    try:
        state = torch.load(checkpoint / "trainer.pt", weights_only=True)
        if (checkpoint / SHARDS).is_dir():
            dcp.load(tensors, checkpoint_id=checkpoint / SHARDS, no_dist=not dist.is_initialized())
        else:
            for name in optimizers:
                for number, parts in state.pop(name)["state"].items():
                    stored |= {f"{name}.{number}.{part}": value for part, value in parts.items()}
            for name in modules:
                parts = load_file(checkpoint / f"{name}.safetensors")
                stored |= {f"{name}.{part}": value for part, value in parts.items()}
    except (Exception, dcp.api.CheckpointException) as error:  # a damaged file raises many kinds
        raise InputError(
            f"{checkpoint}: a file is missing or damaged; delete this checkpoint to continue from the "
            f"one before ({type(error).__name__}: {error})."
        ) from error
    for name, value in stored.items():
        target = tensors[name]
        if isinstance(target, DTensor):  # this process's share
            mesh = target.device_mesh
            value = distribute_tensor(value.to(mesh.device_type), mesh, target.placements)
        target.copy_(value)
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
