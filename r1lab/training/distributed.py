"""Several processes that hold the same weights: gradients are summed, results gathered.

The same code runs in one process (a notebook), in one process per core (a laptop), and under
torchrun: `World` is all that the training code knows of it.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from r1lab.errors import InputError

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
class World:
    """This process's place among `size` processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

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


def under_torchrun() -> bool:
    """True when torchrun (or Slurm through it) has set this process's place."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join_world() -> World:
    """Enter the process group that the environment describes; alone without one."""
    if not under_torchrun() or int(os.environ["WORLD_SIZE"]) == 1:
        return World()
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=30))
    return World(dist.get_rank(), dist.get_world_size())


def default_processes() -> int:
    """One per GPU, else one per core that this process may use."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def run_workers(work: Callable[..., int], processes: int, *args) -> int:
    """Run `work(*args)` in `processes` fresh processes of torch's launcher; the highest exit code.

    Ctrl-C reaches every worker; this process waits until they have saved.

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
    try:
        torch.multiprocessing.spawn(
            _worker, (processes, port, codes, work, args), nprocs=processes, join=True
        )
    except torch.multiprocessing.ProcessExitedException as death:
        while not codes.empty():
            if isinstance(said := codes.get(), str):
                raise InputError(said) from None
        how = f"was killed by {death.signal_name}" if death.signal_name else "ended unexpectedly"
        raise InputError(
            f"worker {death.error_index} {how}; free some memory, then continue from the last "
            "checkpoint with --resume."
        ) from death
    finally:
        signal.signal(signal.SIGINT, before)
    return max(codes.get() for _ in range(processes))


def _worker(rank: int, processes: int, port: int, codes, work: Callable[..., int], args) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    try:
        codes.put(work(*args))
    except InputError as error:
        codes.put(str(error))
        sys.exit(2)  # the launcher ends the other workers, who would wait for this one
    if dist.is_initialized():
        dist.destroy_process_group()
