"""Several processes that hold the same weights: gradients are summed, results gathered.

The same code runs in one process (a notebook), in one process per core (a laptop), and under
torchrun: `World` is all that the training code knows of it. `training.fsdp` has another one, whose
processes hold a share of the weights each.
"""

import copy
import hashlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from r1lab.errors import InputError
from r1lab.models.policy import Policy
from r1lab.training.checkpoint import Modules, Optimizers, save_checkpoint

STOPPED = 130  # exit code where the user stopped it
# Must be in the environment before a worker starts. Spinning threads cost several times the work
# on a busy machine, and memory that glibc hands back must be faulted in again at every step.
WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
    "TOKENIZERS_PARALLELISM": "false",
}


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


class StopRequest:
    """Ctrl-C (or SIGTERM) noted, to be obeyed at the end of the step."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def listen(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, lambda *_: self.set())
            signal.signal(signal.SIGTERM, lambda *_: self.set())
        return self

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()


def fingerprint(model: nn.Module) -> list[int]:
    """For each parameter a number that another value would hardly have: the sum of its bits.

    Integers, so that it is the same whatever the order of the sum, on every kind of machine.
    """
    return [p.detach().float().view(torch.int32).sum().item() for p in model.parameters()]


def under_torchrun() -> bool:
    """True when torchrun (or Slurm through it) has set this process's place."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def first_process() -> bool:
    """True for the one that writes what is written once; also before the processes have met."""
    return os.environ.get("RANK", "0") == "0"


def clip_gradients(module: nn.Module, limit: float) -> Float[Tensor, ""]:
    """Scale the gradients to a norm of at most `limit`; their norm before, over all shares."""
    parameters = list(module.parameters())
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def join_world(parallel: Parallel = Parallel()) -> World:
    """Enter the process group that the environment describes; alone without one."""
    alone = not under_torchrun() or int(os.environ["WORLD_SIZE"]) == 1
    if alone and not parallel.shard:
        return World()
    if not dist.is_initialized():
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(World().device)
        single = {"store": dist.HashStore(), "rank": 0, "world_size": 1} if alone else {}
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"  # results travel between the CPUs
        dist.init_process_group(backend, timeout=timedelta(minutes=30), **single)
    rank, size = dist.get_rank(), dist.get_world_size()
    if not parallel.shard:
        return World(rank, size)
    from r1lab.training.fsdp import ShardedWorld  # which is a World itself

    return ShardedWorld(rank, size, parallel)


def default_processes(questions: int = 0) -> int:
    """One per GPU, else one per core that this process may use; of `questions`, which are to divide
    evenly, as many as that allows."""
    most = torch.cuda.device_count() or len(os.sched_getaffinity(0))
    return next(number for number in range(most, 0, -1) if questions % number == 0)


def run_workers(work: Callable[..., int], processes: int, *args) -> int:
    """Run `work(*args)` in `processes` fresh processes of torch's launcher; the highest exit code.

    Ctrl-C reaches every worker, also while it starts: one that listens (`StopRequest`) saves, and
    this process waits for it; another ends at once, and the result is 130.

    Raises:
        InputError: a worker raised one, or died (it was killed, or ran out of memory).
    """
    os.environ.update(WORKER_ENVIRONMENT)
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // processes))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    codes = torch.multiprocessing.get_context("spawn").SimpleQueue()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # inherited: see `_worker`
    workers = torch.multiprocessing.spawn(
        _worker, (processes, port, codes, work, args), nprocs=processes, join=False
    )
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    try:
        while not workers.join():
            continue
    except (ProcessExitedException, ProcessRaisedException) as death:
        while not codes.empty():
            if isinstance(said := codes.get(), str):
                raise InputError(said) from None
        exit_codes = [worker.exitcode for worker in workers.processes]
        if -signal.SIGINT in exit_codes:
            return STOPPED
        raise _obituary(death, exit_codes) from death
    finally:
        signal.signal(signal.SIGINT, before)
    return max(codes.get() for _ in range(processes))


def _obituary(death: Exception, exit_codes: list[int]) -> Exception:
    """What to raise for a dead worker, by the launcher's report and the workers' exit codes.

    The workers that are left lose their connection, which may be noticed before the death itself.
    """
    killed = [rank for rank, code in enumerate(exit_codes) if code == -signal.SIGKILL]
    if isinstance(death, ProcessRaisedException) and not killed:
        return death  # a fault in the code: its traceback says where
    how, rank = "ended unexpectedly", death.error_index
    if killed:
        how, rank = "was killed by SIGKILL", killed[0]
    elif death.signal_name:
        how = f"was killed by {death.signal_name}"
    return InputError(
        f"worker {rank} {how}; free some memory, then continue from the last checkpoint with "
        "--resume."
    )


def _worker(rank: int, processes: int, port: int, codes, work: Callable[..., int], args) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # A Ctrl-C since this process began has waited until now. It ends here, unless `work` listens.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    try:
        codes.put(work(*args))
    except InputError as error:
        codes.put(str(error))
        sys.exit(2)  # the launcher ends the other workers, who would wait for this one
    if dist.is_initialized():
        dist.destroy_process_group()
