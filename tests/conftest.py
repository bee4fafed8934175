"""Settings of every test and, through `-p tests.conftest`, of the notebooks' run."""

import gc
import os
import sys

# One thread per process, no drawing window, no network, nothing that moves in a notebook's output:
# set before torch and transformers are imported, and inherited by kernels and worker processes.
os.environ.update(
    R1LAB_STATIC="1", MPLBACKEND="Agg", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
)  # fmt: skip
# Triton's kernels run in its interpreter, on the CPU; make test-gpu turns that off.
os.environ.setdefault("TRITON_INTERPRET", "1")

import hypothesis  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

from tests import NOTEBOOKS  # noqa: E402

# From here on, every call of a function of r1lab checks the shapes and types of its signature, and so
# do the files beside the lessons.
jaxtyping.install_import_hook(["r1lab", *(path.stem for path in NOTEBOOKS.glob("*.py")), "grading"], "beartype.beartype")

# The same examples in every run, and no deadline: a busy machine is no failure.
hypothesis.settings.register_profile("r1lab", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("r1lab")


@pytest.fixture(autouse=True, scope="module")
def no_process_group_is_left():
    """A group of one, which a sharded run in this process joins, would be inherited by what the next
    module forks; and as garbage it would be collected there, and wait for threads for ever."""
    yield
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_initialized():
        distributed.destroy_process_group()
        gc.collect()


@pytest.fixture
def alone(monkeypatch):
    """Train in this process, as torchrun would with one."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")


def pytest_collectstart(collector):
    """Warnings on a notebook's stderr are not compared: they differ between machines."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
