"""Checkpoints that are whole or absent: a kill at any moment leaves the last one readable."""

import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from r1lab.errors import InputError

KEPT = 2  # the newest ones; one more than needed, in case the disk spoils the newest


def checkpoint_path(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:06d}"


def save_checkpoint(run: Path, step: int, model, tokenizer, state: dict, extra: dict) -> Path:
    """Write model (Hugging Face format) and trainer state, then make them appear at once.

    Args:
        state: what torch.save takes: optimizer and position.
        extra: name -> module, whose weights are stored beside (the reference policy).
    """
    final = checkpoint_path(run, step)
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        torch.save(state, partial / "trainer.pt")
        for name, module in extra.items():
            save_file(_unique_tensors(module), partial / f"{name}.safetensors")
        for file in partial.iterdir():
            _to_disk(file)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(
            f"the checkpoint of step {step} could not be written ({error.strerror}); free some "
            f"space and continue with --resume: the run is whole up to its last checkpoint."
        ) from error
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _to_disk(final.parent)
    for old in list_checkpoints(run)[:-KEPT]:
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


def list_checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


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
            parameter.copy_(stored[name])
