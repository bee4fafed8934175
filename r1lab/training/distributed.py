"""Several processes that hold the same weights: gradients are summed, results gathered.

The same code runs in one process (a notebook), in one process per core (a laptop), and under
torchrun: `World` is all that the training code knows of it. `training.fsdp` has another one, whose
processes hold a share of the weights each, and `training.processes` starts them.
"""

import copy
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from r1lab.errors import InputError
from r1lab.models.policy import Policy
from r1lab.training.checkpoint import Modules, Optimizers, save_checkpoint


@dataclass(frozen=True)
class Parallel:
    """How a model is spread over the processes: changes memory and time, not what is learned.

    Attributes:
        shard: each process holds a share of weights, gradients and optimizer state (FSDP2)
            instead of all of them; the settings below need it.
        precision: of the computation. Stored weights, sums of gradients and the optimizer's state
            stay float32.
        recompute: compute a layer's activations again in the backward pass instead of keeping them.
        reduce_every: sum gradients after every micro-batch, not once an update: more messages, but
            no process ever holds the gradients of the whole model.
        offload: keep the shares in the host's memory.
        gpus: how many the settings are made for; a run without a GPU, or with too little memory on
            it, is then refused before it is loaded. 0: nothing is asked.
    """

    shard: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    recompute: bool = False
    reduce_every: bool = False
    offload: bool = False
    gpus: int = 0

    def __post_init__(self) -> None:
        others = (self.precision != "float32", self.recompute, self.reduce_every, self.offload)
        if any(others) and not self.shard:
            raise InputError(
                "precision, recompute, reduce_every and offload belong to a sharded run; set shard "
                "as well, or none of them."
            )


@dataclass(frozen=True)
class World:
    """This process's place among `size` processes that all hold the same weights."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @cached_property
    def device(self) -> torch.device:
        """The GPU of this process, or the CPU where there is none."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))

    def place(self, module: nn.Module, trained: bool = True) -> nn.Module:
        """Put a module where this process computes."""
        return module.to(self.device)

    def sampling_copy(self, model: nn.Module, apart: bool = False) -> nn.Module:
        """The model that this process samples from: the trained one, unless it is to stand apart."""
        return copy.deepcopy(model).requires_grad_(False).to(self.device) if apart else model

    def full_parameters(self, policy: Policy) -> Iterator[tuple[str, Tensor]]:
        """Name and whole value of every parameter of the policy's model, for a sampler."""
        return policy.model.named_parameters()

    def in_step(self, batches: list[list[int]], module: nn.Module) -> Iterator[list[int]]:
        """The micro-batches of an update, at the pace that the other processes need."""
        return iter(batches)

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its sum over the processes, in one message."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        for parameter in parameters:  # a process may have had no row in this mini-batch
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.size == 1:
            return
        flat = torch.cat([p.grad.reshape(-1) for p in parameters])
        dist.all_reduce(flat)
        pieces = flat.split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad.copy_(piece.view_as(parameter))

    def save(
        self, run: Path, step: int, policy: Policy, tokenizer, state: dict,
        optimizers: Optimizers, modules: Modules,
    ) -> None:  # fmt: skip
        """Write a checkpoint; called on every process. Read it with `checkpoint.restore`."""
        if self.is_main:
            state = {**state, **{name: one.state_dict() for name, one in optimizers.items()}}
            save_checkpoint(run, step, policy.model, tokenizer, state, modules)

    def agree(self, what: str, value) -> None:
        """Refuse to go on where processes were started with different settings, files or weights.

        Raises:
            InputError: on every process, naming those whose `value` prints differently.
        """
        hashes = self.gather(hashlib.sha256(repr(value).encode()).hexdigest())
        others = [str(rank) for rank, own in enumerate(hashes) if own != hashes[0]]
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


def fingerprint(model: nn.Module) -> list[int]:
    """For each parameter a number that another value would hardly have: the sum of its bits.

    Integers, so that it is the same whatever the order of the sum, on every kind of machine.
    """
    return [p.detach().float().view(torch.int32).sum().item() for p in model.parameters()]


def clip_gradients(module: nn.Module, limit: float) -> Float[Tensor, ""]:
    """Scale the gradients to a norm of at most `limit`; their norm before, over all shares."""
    parameters = list(module.parameters())
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm
