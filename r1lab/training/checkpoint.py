"""Checkpoints that are whole or absent: a kill at any moment leaves the last one readable.

A folder holds the policy in Hugging Face format, the trainer's state, and optimizers and further
modules: in whole files, or, written by processes that hold a share each, in the folder `shards`.
Any number of processes reads both kinds.
"""

import os
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from r1lab.errors import InputError
from r1lab.run import Run

KEPT = 2  # the newest ones; one more than needed, in case the disk spoils the newest
SHARDS = "shards"
Optimizers = dict[str, torch.optim.Optimizer]
Modules = dict[str, nn.Module]


def checkpoint_path(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:06d}"


def save_checkpoint(run: Path, step: int, model, tokenizer, state: dict, extra: dict) -> Path:
    """Write model (Hugging Face format) and trainer state, then make them appear at once.

    Args:
        state: what torch.save takes: optimizer and position.
        extra: name -> module, whose weights are stored beside (the reference policy).
    """
    partial = partial_path(run, step)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        for name, module in extra.items():
            save_file(_unique_tensors(module), partial / f"{name}.safetensors")
        return finish_checkpoint(run, step, tokenizer, state)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise not_written(step, str(error.strerror)) from error


def not_written(step: int, why: str) -> InputError:
    return InputError(
        f"the checkpoint of step {step} could not be written ({why}); free some space and continue "
        "with --resume: the run is whole up to its last checkpoint."
    )


def partial_path(run: Path, step: int) -> Path:
    """Where the files of a checkpoint are until it is whole."""
    final = checkpoint_path(run, step)
    return final.with_name(f".{final.name}.partial")


def finish_checkpoint(run: Path, step: int, tokenizer, state: dict) -> Path:
    """Add tokenizer and state to the files that are there, and make the checkpoint appear."""
    final, partial = checkpoint_path(run, step), partial_path(run, step)
    tokenizer.save_pretrained(partial)
    torch.save(state, partial / "trainer.pt")
    for file in partial.rglob("*"):
        _to_disk(file)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _to_disk(final.parent)
    kept = {*Run(run).checkpoints[-KEPT:], Run(run).best}
    for old in {*Run(run).checkpoints} - kept:
        shutil.rmtree(old)
    return final


def _unique_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Named parameters; tied ones appear once."""
    return {name: p.detach().contiguous() for name, p in module.named_parameters()}


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_trainer_state(checkpoint: Path) -> dict:
    """What `save_checkpoint` was given as `state`.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return torch.load(checkpoint / "trainer.pt", weights_only=True)
    except Exception as error:  # a damaged archive raises many kinds
        raise InputError(
            f"{checkpoint}: trainer.pt is missing or damaged; delete this checkpoint to continue "
            "from the one before."
        ) from error


def load_weights_into(module: nn.Module, file: Path) -> None:
    """Copy stored tensors into a module of the same shape."""
    stored = load_file(file)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(_share(stored[name], parameter))


def restore(checkpoint: Path, optimizers: Optimizers, modules: Modules) -> dict:
    """Put optimizers and modules back as they were, on every process; returns the trainer's state.

    Raises:
        InputError: a file is missing or damaged.
    """
    state = load_trainer_state(checkpoint)
    if (checkpoint / SHARDS).is_dir():
        try:
            dcp.load(
                shared_tensors(optimizers, modules), checkpoint_id=checkpoint / SHARDS,
                no_dist=not dist.is_initialized(),
            )  # fmt: skip
        except dcp.api.CheckpointException as error:
            raise InputError(
                f"{checkpoint / SHARDS}: a file is missing or damaged; delete this checkpoint to "
                "continue from the one before."
            ) from error
        return state
    for name, optimizer in optimizers.items():
        _load_optimizer(optimizer, state.pop(name))
    for name, module in modules.items():
        load_weights_into(module, checkpoint / f"{name}.safetensors")
    return state


def shared_tensors(optimizers: Optimizers, modules: Modules) -> dict[str, Tensor]:
    """All tensors of optimizers (AdamW) and modules by name, the very ones that these work with."""
    tensors = {}
    for name, optimizer in optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, parameter in enumerate(parameters):
            own = optimizer.state[parameter]
            if not own:  # before its first step
                own["step"] = torch.zeros((), device=parameter.device)
                own |= {part: torch.zeros_like(parameter) for part in ("exp_avg", "exp_avg_sq")}
            tensors |= {f"{name}.{number}.{part}": value for part, value in own.items()}
    for name, module in modules.items():
        tensors |= {f"{name}.{part}": p.detach() for part, p in module.named_parameters()}
    return tensors


def _load_optimizer(optimizer: torch.optim.Optimizer, stored: dict) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        number: {
            part: value if value.ndim == 0 else _share(value, parameters[number])
            for part, value in own.items()
        }
        for number, own in stored["state"].items()
    }
    optimizer.load_state_dict({**stored, "state": state})


def _share(full: Tensor, parameter: Tensor) -> Tensor:
    """This process's share of a tensor, where the parameter is one of shares; else all of it."""
    if not isinstance(parameter, DTensor):
        return full
    mesh = parameter.device_mesh
    return distribute_tensor(full.to(mesh.device_type), mesh, parameter.placements)
