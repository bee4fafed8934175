"""What this machine has, and what of the lab will run on it."""

import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from r1lab.files import SHIPPED
from r1lab.launch.bootstrap import ROOT, SUPPORTED
from r1lab.training.processes import default_processes
from r1lab.training.provenance import machine
from r1lab.run import Run

DISK_GB = 2.0  # a run's checkpoints, samples and figures, with room to spare


class Check(NamedTuple):
    """One line of the report. `ok`: True good, False to be fixed, None worth knowing."""

    name: str
    ok: bool | None
    found: str
    advice: str = ""


def environment_report() -> list[Check]:
    """Say what this machine has, in the order in which it matters; nothing is changed."""
    here, stored, python = machine(), Run(SHIPPED / "runs/zero"), "%d.%d" % sys.version_info[:2]
    summary = stored.summary if stored.finished else {}
    total, cores, processes = here["memory_gb"], here["cores"], default_processes()
    free, disk = free_memory_gb(total), shutil.disk_usage(Path.cwd()).free / 2**30
    needed, minutes = summary.get("peak_memory_gb", 0.0), summary.get("wall_seconds", 0.0) / 60
    return [
        checked("Python", python in SUPPORTED, here["versions"]["python"],
                f"make the environment with Python {' or '.join(SUPPORTED)}"),
        packages(),
        checked("cores", cores > 1 or None, f"{cores} ({here['cpu']}): a run starts {processes} "
                f"processes of {max(1, cores // processes)} thread(s)",
                "a run takes twice as long as on two"),
        checked("memory", free >= needed, f"{free:.1f} GB free of {total:.1f}",
                f"a run needs {needed:.1f} GB: close programs, or give it fewer --questions"),
        checked("disk", disk >= DISK_GB, f"{disk:.1f} GB free",
                f"free {DISK_GB:.0f} GB for checkpoints"),
        checked("GPU", bool(here["gpu"]) or None, here["gpu"] or "none",
                "not needed here; --preset paper and those of Qwen2.5 on GPUs do not run without"),
        checked("base model", (SHIPPED / "base/model.safetensors").is_file(), "data/base",
                "missing: r1lab pretrain makes it"),
        checked("runs here", True, "every lesson and every cpu preset; the stored run took "
                f"{minutes:.0f} minutes"),
    ]  # fmt: skip


def checked(name: str, ok: bool | None, found: str, advice: str = "") -> Check:
    """A line with its advice, which is given only where it is needed."""
    return Check(name, ok, found, "" if ok else advice)


def packages() -> Check:
    """Compare installed versions with the tested ones, where the file that lists them is here."""
    pins = ROOT / "constraints.txt"
    text = pins.read_text(encoding="utf-8") if pins.is_file() else ""
    same, other = 0, []
    for name, tested in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        try:
            installed = version(name).split("+")[0]
        except PackageNotFoundError:  # no matter here: r1lab would not have been imported
            continue
        same += installed == tested
        if installed != tested:
            other.append(f", {name} {installed} (tested: {tested})")
    found = f"{same} as tested" + "".join(other[:4])
    ok = None if other or not same else True
    return checked("packages", ok, found, "pip install -c constraints.txt -e . gets those")


def free_memory_gb(total: float) -> float:
    """What could be had without swapping; the total where the system does not say."""
    info = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+)", info.read_text()) if info.is_file() else None
    return int(found[1]) / 2**20 if found else total
