"""What this machine has, and what of the lab will run on it."""

import json
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch

from r1lab.launch.bootstrap import ROOT, SUPPORTED
from r1lab.training.processes import default_processes
from r1lab.training.provenance import machine

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DISK_GB = 2.0  # a run's checkpoints, samples and figures, with room to spare


class Check(NamedTuple):
    """One line of the report. `ok`: True good, False to be mended, None worth knowing."""

    name: str
    ok: bool | None
    found: str
    advice: str = ""


def environment_report() -> list[Check]:
    """What this machine has, in the order in which it matters; nothing is started or changed."""
    here, stored, version = machine(), _stored_run(), "%d.%d" % sys.version_info[:2]
    total, cores, processes = here["memory_gb"], here["cores"], default_processes()
    free, disk = _free_memory_gb(total), shutil.disk_usage(Path.cwd()).free / 2**30
    needed, minutes = stored.get("peak_memory_gb", 0.0), stored.get("wall_seconds", 0.0) / 60
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    rows = [
        ("Python", version in SUPPORTED, here["versions"]["python"],
         f"make the environment with Python {' or '.join(SUPPORTED)}"),
        _packages(),
        ("cores", cores > 1 or None, f"{cores} ({here['cpu']}): a run starts {processes} processes "
         f"of {max(1, cores // processes)} thread(s)", "a run takes twice as long as on two"),
        ("memory", free >= needed, f"{free:.1f} GB free of {total:.1f}",
         f"a run needs {needed:.1f} GB: close programs, or give it fewer --questions"),
        ("disk", disk >= DISK_GB, f"{disk:.1f} GB free", f"free {DISK_GB:.0f} GB for checkpoints"),
        ("GPU", bool(here["gpu"]) or None, here["gpu"] or "none",
         "not needed here; --preset paper and those of Qwen2.5 on GPUs do not run without"),
        ("base model", (ROOT / "data/base/model.safetensors").is_file(), "data/base",
         "not there: r1lab pretrain makes it"),
        ("JupyterLab", True, metadata.version("jupyterlab"), ""),
        ("browser", bool(browser) or None, browser or "none",
         "only the tests of the widgets need Chromium on this machine"),
        ("runs here", True, "every lesson and every cpu preset; the stored run took "
         f"{minutes:.0f} minutes on {stored.get('machine', {}).get('cores', 'some')} cores", ""),
    ]  # fmt: skip
    return [Check(name, ok, found, "" if ok else advice) for name, ok, found, advice in rows]


def _packages() -> tuple[str, bool | None, str, str]:
    """Installed versions against the tested ones. A missing package is no matter here: r1lab would
    not have been imported."""
    pins = ROOT / "constraints.txt"
    text = pins.read_text(encoding="utf-8") if pins.is_file() else ""
    installed = {
        re.sub(r"[-_.]+", "-", each.name).lower(): each.version.split("+")[0]
        for each in metadata.distributions()
    }
    pairs = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    other = [f"{name} {installed[name]} (tested: {version})" for name, version in pairs
             if installed.get(name, version) != version]  # fmt: skip
    found = f"{len(pairs) - len(other)} as tested" + "".join(f", {each}" for each in other[:4])
    return "packages", not other or None, found, "pip install -c constraints.txt -e . gets those"


def _stored_run() -> dict:
    summary = ROOT / "data/runs/zero/summary.json"
    return json.loads(summary.read_text()) if summary.is_file() else {}


def _free_memory_gb(total: float) -> float:
    """What could be had without swapping; the total where the system does not say."""
    info = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+)", info.read_text()) if info.is_file() else None
    return int(found[1]) / 2**20 if found else total
