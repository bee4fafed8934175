"""Ctrl-C where no run is saved: a chain that measures is to end at once, and quietly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1lab import cli
from tests.test_cli import workers_of


def hears_ctrl_c(worker: int) -> bool:
    """False where the process keeps SIGINT waiting, as a worker does that has just been started."""
    status = dict(line.split(":", 1) for line in open(f"/proc/{worker}/status"))
    return not int(status["SigBlk"], 16) >> (signal.SIGINT - 1) & 1


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
@pytest.mark.parametrize("when", ["its workers start", "they measure"])
def test_ctrl_c_ends_a_chain_that_measures(when, tmp_path):
    """As a terminal sends it: to every process of the command at once."""
    (tmp_path / "data").symlink_to(Path("data").resolve())
    options = "--base data/tiny --student data/tiny --processes 2 --samples 64"
    chain = subprocess.Popen(
        [sys.executable, "-m", "r1lab", "r1", *options.split()],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    found = []
    while len(found) < 2 or (when == "they measure" and not all(map(hears_ctrl_c, found))):
        assert chain.poll() is None, chain.stderr.read()
        time.sleep(0.05)
        found = workers_of(chain.pid)
    if when == "they measure":
        time.sleep(2)
    os.killpg(chain.pid, signal.SIGINT)
    try:
        _, said = chain.communicate(timeout=60)
    finally:
        if chain.poll() is None:
            os.killpg(chain.pid, signal.SIGKILL)
    assert chain.returncode == cli.STOPPED
    assert "the same command goes on" in said and "Traceback" not in said
    assert not [pid for pid in found if os.path.exists(f"/proc/{pid}")]
    assert not list(tmp_path.rglob("benchmarks.json"))
