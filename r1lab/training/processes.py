"""One way to compute in several processes: fresh ones here, or those of torchrun."""

import copyreg
import functools
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import cloudpickle
import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from tqdm import tqdm

from r1lab.errors import InputError
from r1lab.files import read_toml
from r1lab.machine import cores
from r1lab.run import Run, first_process
from r1lab.training.distributed import Parallel, ShardedWorld, World

STOPPED = 130  # exit code where the user stopped it
WORKER_ENVIRONMENT = read_toml(__file__, "environment")
# Computes this process's share, as work(world, stop, ...) of types World and StopRequest; False: the
# user stopped it, and what was done is saved.
Work = Callable[..., bool]


class StopRequest(threading.Event):
    """Ctrl-C (or SIGTERM) noted, to be obeyed at the end of the step; a second Ctrl-C ends at once."""

    def listen(self):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._interrupted)
            signal.signal(signal.SIGTERM, lambda *_: self.set())

    def _interrupted(self, *_):
        self.set()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if first_process():
            print(
                "\nStopping after this step, and saving. Press Ctrl-C again to stop at once.",
                file=sys.stderr, flush=True,
            )  # fmt: skip


class Progress(tqdm):
    """A bar with elapsed and remaining time; an update now and then when nobody watches a terminal.

    Only the first process shows it, and nothing is shown of a run in another than the main thread: it
    has a dashboard.
    """

    monitor_interval = 0  # no thread of its own: this process may be forked

    def __init__(self, total: int | float, label: str, done: int = 0, **look: str):
        shown = first_process() and threading.current_thread() is threading.main_thread()
        pause = 0.1 if sys.stderr.isatty() else 20
        super().__init__(total=total, desc=label, initial=done, disable=not shown,
                         mininterval=pause, miniters=1, smoothing=0, **look)  # fmt: skip

    def show(self, done: int | float, **notes: str):
        """Show how far it is, with a few current numbers."""
        self.set_postfix(notes, refresh=False)
        self.update(done - self.n)


def default_processes(questions: int = 0) -> int:
    """One per GPU, else one per core that this process may use; of `questions`, which must divide
    evenly, the largest number that allows it."""
    most = torch.cuda.device_count() or cores()
    return next(number for number in range(most, 0, -1) if questions % number == 0)


def peak_memory_gb() -> float:
    """The most memory that this process has held since it started."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def join_world(parallel: Parallel = Parallel()) -> World:
    """Enter the process group that the environment describes; alone without one."""
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
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
    return (ShardedWorld if parallel.shard else World)(rank, size, parallel)


def compute(
    run: Run, settings: object, work: Work, processes: int, *args, about: Mapping = {},
    resume: bool = True, overwrite: bool = False,
) -> Run:  # fmt: skip
    """Start the run, or go on with it: `work(world, stop, run, *args)` in every process.

    Args:
        settings: the configuration, a dataclass that JSON can hold; stored with `about`. Where it has
            `parallel`, that is how the model is spread over the processes.
        resume: False refuses a run that is finished.
        overwrite: delete an earlier run first.
    Raises:
        InputError: another process works here, or the folder holds a run with other settings.
        KeyboardInterrupt: the user stopped it; the run is saved.
    """
    with run.locked():
        run.prepare(settings, about, resume, overwrite)
        if not run.finished:
            launch(work, processes, run, *args, parallel=getattr(settings, "parallel", Parallel()))
    return run


def launch(work: Work, processes: int, *args, parallel: Parallel = Parallel(), saves: bool = True):
    """Run `work(world, stop, *args)` in every process: those of torchrun, or `processes` fresh ones (0:
    as `default_processes` says).

    Functions of a notebook or a script may be among the arguments.

    Args:
        saves: Ctrl-C is left to the work, which saves; otherwise it ends the work at once.
    Raises:
        InputError: a worker raised it or died, or an argument cannot be sent to another process.
        KeyboardInterrupt: the user stopped it; the work is saved.
    """
    if "RANK" in os.environ:  # torchrun (or Slurm through it) has set this process's place
        code = _share(work, args, parallel, saves)
    else:
        code = _spawn(_packed(work, args, parallel, saves), processes or default_processes())
    if code == STOPPED:
        raise KeyboardInterrupt


def _share(work, args, parallel, saves):
    """This process's share of the work; the exit code."""
    stop = StopRequest()
    if saves:
        stop.listen()
    return 0 if work(join_world(parallel), stop, *args) else STOPPED


def _packed(*share):
    """What a worker is started with. Refuses a script that workers, which import it, would run again."""
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if script.suffix == ".py" and "__name__" not in script.read_text(encoding="utf-8"):
        raise InputError(
            f"{script.name} has no line `if __name__ == \"__main__\":`, so each worker process would "
            "run the whole script again; put the call below such a line."
        )
    try:
        return cloudpickle.dumps(share)
    except Exception as error:  # every type has its own way to refuse
        raise InputError(
            f"a reward, check or prompt function cannot be sent to another process ({error}); let "
            "it use nothing that belongs to this process alone (open files, locks, GPUs)."
        ) from error


def _reduced(cached):
    """How a cached function is sent: by its name where the other process can import it, else itself with
    an empty cache."""
    home = sys.modules.get(cached.__module__)
    if cached.__module__ != "__main__" and getattr(home, cached.__qualname__, None) is cached:
        return cached.__qualname__
    return functools.lru_cache(**cached.cache_parameters()), (cached.__wrapped__,)


copyreg.pickle(type(functools.cache(_packed)), _reduced)  # cloudpickle knows no such functions


def _spawn(payload, processes):
    """Start the workers with torch's launcher and wait for them; the highest exit code.

    Ctrl-C reaches every worker, also while it starts: one that listens (`StopRequest`) saves, and
    this process waits for it; another ends at once, and the result is 130.
    """
    os.environ.update(WORKER_ENVIRONMENT)
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // processes))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    codes = torch.multiprocessing.get_context("spawn").SimpleQueue()
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # inherited: see `_worker`
    workers = torch.multiprocessing.spawn(
        _worker, (processes, port, codes, payload), nprocs=processes, join=False
    )
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    try:
        while not workers.join():
            continue
    except (ProcessExitedException, ProcessRaisedException) as death:
        while not codes.empty():
            if isinstance(refusal := codes.get(), str):
                raise InputError(refusal) from None
        exit_codes = [worker.exitcode for worker in workers.processes]
        if -signal.SIGINT in exit_codes:
            return STOPPED
        raise _cause_of_death(death, exit_codes) from death
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)
    return max(codes.get() for _ in range(processes))


def _cause_of_death(death, exit_codes):
    """What to raise for a dead worker, by the launcher's report and the workers' exit codes.

    The workers that are left lose their connection, which may be noticed before the death itself.
    """
    killed = [rank for rank, code in enumerate(exit_codes) if code == -signal.SIGKILL]
    if isinstance(death, ProcessRaisedException) and not killed:
        return death  # a fault in the code: its traceback says where
    rank = killed[0] if killed else death.error_index
    code = exit_codes[rank]
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "ended unexpectedly"
    return InputError(
        f"worker {rank} {how}; free some memory, then continue from the last checkpoint with --resume."
    )


def _worker(rank, processes, port, codes, payload):
    here = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))  # lo, on macOS lo0
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME=here,
    )  # fmt: skip
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # A Ctrl-C since this process started has waited until now. It ends here, unless `work` listens.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    try:
        codes.put(_share(*cloudpickle.loads(payload)))
    except InputError as error:
        codes.put(str(error))
        sys.exit(2)  # the launcher ends the other workers, who would wait for this one
    if dist.is_initialized():
        dist.destroy_process_group()
