"""FSDP2: processes that hold a share of the weights each, and put a layer together to use it."""

import copy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from r1lab.errors import InputError
from r1lab.models.policy import Policy
from r1lab.training.checkpoint import (
    SHARDS,
    Modules,
    Optimizers,
    finish_checkpoint,
    not_written,
    partial_path,
    shared_tensors,
)
from r1lab.training.distributed import Parallel, World


@dataclass(frozen=True)
class ShardedWorld(World):
    """The processes of a run whose model is cut into `size` shares."""

    parallel: Parallel = Parallel(shard=True)

    def place(self, module: nn.Module, trained: bool = True) -> nn.Module:
        """Shard each layer, then the rest of the module, in place.

        The root of a trained module stays together between its forward and backward pass; a
        reference policy has no backward pass and gives everything back.
        """
        layers = [one for one in module.modules() if isinstance(one, GradientCheckpointingLayer)]
        if not layers:
            raise InputError("this model has no layers that can be sharded; run it without shard.")
        if trained and self.parallel.recompute:
            _recompute(module, layers)
        mesh = init_device_mesh(self.device.type, (self.size,))
        dtype = getattr(torch, self.parallel.precision)
        on_gpu = self.device.type == "cuda"
        how = {
            "mesh": mesh,
            "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32),
            "offload_policy": CPUOffloadPolicy(pin_memory=on_gpu)
            if self.parallel.offload
            else OffloadPolicy(),
        }
        for layer in layers:
            fully_shard(layer, reshard_after_forward=True, **how)
        fully_shard(module, reshard_after_forward=not trained, **how)
        for part in _sharded_parts(module):
            # The loss is divided by a global count already: gradients are summed, not averaged.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no other scaled sum
        return module

    def sampling_copy(self, model: nn.Module, apart: bool = True) -> nn.Module:
        """A whole model beside the shares; `full_parameters` brings it up to date."""
        dtype = getattr(torch, self.parallel.precision)
        return copy.deepcopy(model).requires_grad_(False).to(self.device, dtype)

    def full_parameters(
        self, policy: Policy, dtype: torch.dtype | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Put each parameter together on every process, one at a time, in the run's precision."""
        dtype = dtype or getattr(torch, self.parallel.precision)
        for part in _sharded_parts(policy):
            part.reshard()
        for name, parameter in policy.model.named_parameters():
            yield name, parameter.detach().to(self.device, dtype).full_tensor()

    def in_step(self, batches: list[list[int]], module: nn.Module) -> Iterator[list[int]]:
        """The micro-batches, as many turns on every process: a layer is put together by all.

        Gradients are summed over the processes in the last turn, or in every one
        (`Parallel.reduce_every`). A process that has no micro-batch left works on no token.
        """
        turns = max(self.gather(len(batches)))
        for turn in range(turns):
            last = turn + 1 == turns
            module.set_requires_gradient_sync(last or self.parallel.reduce_every)
            if turn < len(batches):
                yield batches[turn]
            else:
                self._idle(module)

    def _idle(self, module: nn.Module) -> None:
        """One forward (and backward) pass whose loss is an empty sum."""
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.device)
        out = module(ids, torch.zeros_like(ids, dtype=torch.bool))
        values = out[0] if isinstance(out, tuple) else out
        if values.requires_grad:
            values.sum().backward()

    def sum_gradients(self, model: nn.Module) -> None:
        """Nothing is left to do: the backward pass of the last turn has summed them."""

    def save(
        self, run: Path, step: int, policy: Policy, tokenizer, state: dict,
        optimizers: Optimizers, modules: Modules,
    ) -> None:  # fmt: skip
        """Every process writes its shares; the first one the whole policy, for everybody else."""
        partial, trouble = partial_path(run, step), None
        if self.is_main:
            shutil.rmtree(partial, ignore_errors=True)
        self.gather(None)  # nobody writes before the folder is gone
        try:
            dcp.save(shared_tensors(optimizers, modules), checkpoint_id=partial / SHARDS)
            whole = self.full_parameters(policy, torch.float32)
            weights = {name: value.cpu() for name, value in whole if self.is_main}
            if self.is_main:
                policy.model.save_pretrained(partial, state_dict=weights)
                finish_checkpoint(run, step, tokenizer, state)
        except (OSError, dcp.api.CheckpointException) as error:
            trouble = f"{type(error).__name__}: {error}".splitlines()[0]
        if found := [one for one in self.gather(trouble) if one]:
            raise not_written(step, found[0])


def _recompute(module: nn.Module, layers: list[GradientCheckpointingLayer]) -> None:
    """Keep only the input of each layer for the backward pass.

    transformers does so in training mode alone. Only the layers themselves enter it: the dropout
    inside them would make the policy differ from the one that was sampled.
    """
    model = next(one for one in module.modules() if isinstance(one, PreTrainedModel))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for layer in layers:
        layer.training = True


def _sharded_parts(module: nn.Module) -> list[FSDPModule]:
    return [part for part in module.modules() if isinstance(part, FSDPModule)]
