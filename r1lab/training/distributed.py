"""The processes of a run: each holds the same weights, or a share of them (FSDP2).

The same code runs in one process (a notebook), in one process per core (a laptop), and under
torchrun: a `World` is all that the training code knows of it. `training.processes` starts them.
"""

import copy
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from r1lab.errors import InputError
from r1lab.models.policy import Policy
from r1lab.run import first_process
from r1lab.task import hash_of


Precision = Literal["float32", "bfloat16", "auto"]


def bfloat16_is_fast() -> bool:
    """Does this machine's GPU, or without one its CPU, have instructions for bfloat16?"""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def arithmetic(precision: Precision) -> torch.dtype:
    """Choose what products are computed in; "auto" is bfloat16 where that is fast, else float32."""
    if precision == "auto":
        return torch.bfloat16 if bfloat16_is_fast() else torch.float32
    return getattr(torch, precision)


def settled(config):
    """Settings with their precision chosen for this machine; say so where it computes that slowly."""
    dtype = arithmetic(config.precision)
    if dtype == torch.bfloat16 and not bfloat16_is_fast() and first_process():
        print(
            "This machine has no instructions for bfloat16 and computes it slowly; precision float32, or "
            "auto, is faster here.", file=sys.stderr, flush=True,
        )  # fmt: skip
    return replace(config, precision=str(dtype).removeprefix("torch."))


@dataclass(frozen=True)
class Parallel:
    """How a model is spread over the processes: changes memory and time, not what is learned.

    Attributes:
        shard: each process holds a share of weights, gradients and optimizer state (FSDP2)
            instead of all of them; the settings below need it.
        recompute: compute a layer's activations again in the backward pass instead of keeping them.
        reduce_every: sum gradients after every micro-batch, not once an update: more messages, but
            no process ever holds the gradients of the whole model.
        offload: keep the shares in the host's memory.
        gpus: how many the settings are made for; a run without a GPU, or with too little memory on
            it, is then refused before it is loaded. 0: nothing is asked.
    """

    shard: bool = False
    recompute: bool = False
    reduce_every: bool = False
    offload: bool = False
    gpus: int = 0

    def __post_init__(self):
        if (self.recompute or self.reduce_every or self.offload) and not self.shard:
            raise InputError(
                "recompute, reduce_every and offload belong to a sharded run; set shard "
                "as well, or none of them."
            )


@dataclass(frozen=True)
class World:
    """This process's place among `size` processes that all hold the same weights."""

    rank: int = 0
    size: int = 1
    parallel: Parallel = Parallel()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @cached_property
    def device(self) -> torch.device:
        """The GPU of this process, or the CPU where there is none."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))

    def place(self, module: nn.Module, trained: bool = True, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Put a module where this process computes; its weights stay what they are."""
        return module.to(self.device)

    def sampling_copy(self, model: nn.Module, dtype: torch.dtype, apart: bool) -> nn.Module:
        """The model that this process samples from: the trained one, or a copy in this precision beside
        it; `full_parameters` brings that up to date."""
        if dtype == torch.float32 and not (apart or self.parallel.shard):
            return model.to(self.device)
        return copy.deepcopy(model).requires_grad_(False).to(self.device, dtype)

    def full_parameters(self, policy: Policy, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Name and whole value of every parameter of the policy's model, for a sampler."""
        return policy.model.named_parameters()

    def in_step(self, batches: list[list[int]], module: nn.Module) -> Iterator[list[int]]:
        """The micro-batches of an update, at the pace that the other processes need."""
        return iter(batches)

    def sum_gradients(self, model: nn.Module):
        """Replace each gradient by its sum over the processes, in one message."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        for parameter in parameters:  # a process may have had no row in this mini-batch
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.size > 1:
            gradients = [parameter.grad for parameter in parameters]
            flat = nn.utils.parameters_to_vector(gradients)
            dist.all_reduce(flat)
            nn.utils.vector_to_parameters(flat, gradients)

    def agree(self, what: str, value):
        """Refuse to go on where processes were started with different settings, files or weights.

        Raises:
            InputError: on every process, naming those whose `value` prints differently.
        """
        hashes = self.gather(hash_of(repr(value)))
        others = [str(rank) for rank, one in enumerate(hashes) if one != hashes[0]]
        if others:
            raise InputError(
                f"{what} of process {', '.join(others)} differ from those of process 0; give every "
                "machine the same settings, files and version of the code."
            )

    def gather(self, value) -> list:
        """The value of every process, in order of rank, on every process."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """True on every process if it is True on one: they stop together or not at all."""
        return any(self.gather(flag))


class ShardedWorld(World):
    """The processes of a run whose model is cut into `size` shares; a layer is put together to use it."""

    def place(self, module, trained=True, dtype=torch.float32):
        """Shard each layer, then the rest of the module, in place; `dtype` is that of a layer in use.

        The root of a trained module stays together between its forward and backward pass; a
        reference policy has no backward pass and gives everything back.
        """
        layers = [one for one in module.modules() if isinstance(one, GradientCheckpointingLayer)]
        if not layers:
            raise InputError("this model has no layers that can be sharded; run it without shard.")
        if trained and self.parallel.recompute:
            _recompute(module, layers)
        kind, offload = self.device.type, OffloadPolicy()
        if self.parallel.offload:
            offload = CPUOffloadPolicy(pin_memory=kind == "cuda")
        how = {
            "mesh": init_device_mesh(kind, (self.size,)),
            "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32),
            "offload_policy": offload,
        }
        for layer in layers:
            fully_shard(layer, reshard_after_forward=True, **how)
        fully_shard(module, reshard_after_forward=not trained, **how)
        for part in _sharded_parts(module):
            # The loss is divided by a global count already: gradients are summed, not averaged.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no other scaled sum
        return module

    def full_parameters(self, policy, dtype):
        """Put each parameter together on every process, one at a time."""
        for part in _sharded_parts(policy):
            part.reshard()
        for name, parameter in policy.model.named_parameters():
            yield name, parameter.detach().to(self.device, dtype).full_tensor()

    def in_step(self, batches, module):
        """The micro-batches, as many turns on every process: a layer is put together by all.

        Gradients are summed over the processes in the last turn, or in every one
        (`Parallel.reduce_every`). A process that has no micro-batch left works on no token.
        """
        turns = max(self.gather(len(batches)))
        for turn in range(turns):
            module.set_requires_gradient_sync(turn + 1 == turns or self.parallel.reduce_every)
            if turn < len(batches):
                yield batches[turn]
            else:
                self._idle(module)

    def _idle(self, module):
        """One forward (and backward) pass whose loss is an empty sum."""
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.device)
        out = module(ids, torch.zeros_like(ids, dtype=torch.bool))
        values = out[0] if isinstance(out, tuple) else out
        if values.requires_grad:
            values.sum().backward()

    def sum_gradients(self, model):
        """Nothing is left to do: the backward pass of the last turn has summed them."""


def _recompute(module, layers):
    """Keep only the input of each layer for the backward pass.

    transformers does so in training mode alone. Only the layers themselves enter it: the dropout
    inside them would make the policy differ from the one that was sampled.
    """
    model = next(one for one in module.modules() if isinstance(one, PreTrainedModel))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for layer in layers:
        layer.training = True


def _sharded_parts(module):
    return [part for part in module.modules() if isinstance(part, FSDPModule)]


def fingerprint(model: nn.Module) -> list[int]:
    """For each parameter a number that another value would hardly have: the sum of its bits.

    Integers, so that it is the same whatever the order of the sum, on every kind of machine.
    """
    return [p.detach().float().view(torch.int32).sum().item() for p in model.parameters()]


def clip_gradients(module: nn.Module, limit: float) -> Float[Tensor, ""]:
    """Scale the gradients to a norm of at most `limit`; their norm before, over all shares."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), limit)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
