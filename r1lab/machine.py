"""Where numbers come from: the command, the commit, and the machine with its cores."""

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil

from r1lab.files import PACKAGE, Row

# Where a container's limits are written, in cgroup v2 and v1: microseconds of computing in a period of
# so many, and bytes of memory.
CGROUPS = Path("/sys/fs/cgroup")
QUOTAS = (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"])
MEMORY = ("memory.max", "memory/memory.limit_in_bytes")


def cores() -> int:
    """Count the cores that this process may use: by its affinity, where the system has one, and by the
    quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in QUOTAS:
        if len(limits := _limits(names)) == 2:
            allowed = min(allowed, max(1, limits[0] // limits[1]))
    return allowed


def memory_bytes() -> int:
    """Count the bytes of memory: the machine's, or its container's limit where that is lower."""
    return min([psutil.virtual_memory().total, *_limits(MEMORY)])


def _limits(names):
    """The numbers in these files of the container; what has no limit is no number: "max" or -1."""
    files = [CGROUPS / name for name in names]
    words = " ".join(file.read_text() for file in files if file.is_file()).split()
    return [int(word) for word in words if word.isdigit()]


def provenance() -> Row:
    """Where numbers come from: the command, the commit and the machine that made them."""
    return {"command": command(), "commit": commit(), "machine": machine()}


def command() -> str | None:
    """What was typed to start this process; None where it was not the command line (a notebook)."""
    program = Path(sys.argv[0])
    typed = "r1lab" in (program.name, program.parent.name)  # the latter: python -m r1lab
    return shlex.join(["r1lab", *sys.argv[1:]]) if typed else None


def commit() -> str | None:
    """The commit of this package, with "-dirty" where its files differ; None outside a checkout."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "."], stderr=subprocess.DEVNULL)
    except FileNotFoundError:  # no git on this machine
        return None
    return head.stdout.strip() + "-dirty" * (changed.returncode == 1) or None


def machine() -> Row:
    """What the numbers were measured on."""
    import torch  # takes a second to import, and reading a run needs no torch

    info = Path("/proc/cpuinfo")
    cpu = re.search(r"^model name\s*: (.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    versions = {name: version(name) for name in ("torch", "transformers", "r1lab")}
    return {
        "cpu": cpu[1] if cpu else platform.processor() or platform.machine(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_gb": round(memory_bytes() / 2**30, 1),
        "versions": {"python": platform.python_version(), **versions},
    }
