"""Where numbers come from: the command, the commit and the machine that made them."""

import os
import platform
import resource
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch


def command() -> str | None:
    """What was typed to start this run; None where it was not the command line (a notebook)."""
    program = Path(sys.argv[0])
    if program.name == "r1lab" or program.parent.name == "r1lab":  # the latter: python -m r1lab
        return shlex.join(["r1lab", *sys.argv[1:]])
    return None


def commit() -> str | None:
    """The commit of this package, with "-dirty" where its files differ; None outside a checkout."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parents[1], capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        return done.stdout.strip()

    try:
        head, changed = git("rev-parse", "--short", "HEAD"), git("diff", "--name-only", "HEAD", ".")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changed else head


def machine() -> dict:
    """What the numbers were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_gb": round(memory, 1),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "r1lab")},
        },
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_memory_gb() -> float:
    """Of this process, since it started."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
