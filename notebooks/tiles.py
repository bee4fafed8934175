"""As much of Triton's language as lesson 11's kernels use, in numpy, for systems that Triton is not built for.

A tile is an array, a pointer holds addresses, and the programs of a grid run one after another, as in Triton's
own interpreter. The names are Triton's.
"""

import json
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from r1lab.files import NOTEBOOKS


class Pointer:
    """Addresses in a tensor: adding whole numbers moves them by as many elements."""

    def __init__(self, tensor: torch.Tensor, moved: Any = 0):
        self.tensor, self.moved = tensor, np.asarray(moved)

    def __add__(self, elements):
        return Pointer(self.tensor, self.moved + elements)

    @property
    def data(self) -> np.ndarray:
        return self.tensor.data_ptr() + self.moved * self.tensor.element_size()

    @property
    def memory(self) -> np.ndarray:
        return self.tensor.view(-1).numpy()


class Builder:
    """Makes the loads and stores; whoever replaces a method hears of each."""

    def create_masked_load(self, pointers, mask, other):
        """Read where the mask is true, nothing else; `other` fills the rest."""
        read = np.full(pointers.moved.shape, other, pointers.memory.dtype)
        read[mask.data] = pointers.memory[pointers.moved[mask.data]]
        return read

    def create_masked_store(self, pointers, value, mask):
        """Write where the mask is true."""
        pointers.memory[pointers.moved[mask.data]] = np.broadcast_to(value, mask.data.shape)[mask.data]


class Kernel:
    """A function that is started once for each program of a grid: `kernel[(3,)](...)`."""

    program = 0

    def __init__(self, function: Callable):
        self.function = function

    def __getitem__(self, grid: tuple[int]):
        return partial(self.launch, grid[0])

    def launch(self, programs: int, *arguments, **constants):
        """Run every program; a tensor becomes the pointer to its first element."""
        given = [Pointer(one) if isinstance(one, torch.Tensor) else one for one in arguments]
        for Kernel.program in range(programs):
            self.function(*given, **constants)


def whole_mask(pointers, mask):
    """The mask of each address; without one, all count."""
    mask = np.ones(pointers.moved.shape, bool) if mask is None else mask
    return SimpleNamespace(data=np.broadcast_to(mask, pointers.moved.shape))


def load(pointers, mask=None, other=0):
    return builder.create_masked_load(pointers, whole_mask(pointers, mask), other)


def store(pointers, value, mask=None):
    builder.create_masked_store(pointers, value, whole_mask(pointers, mask))


def dot(a, b, added, input_precision):
    """a @ b + added; `input_precision` is "ieee", numpy's own."""
    return a @ b + added


def print_stored(*starts: str):
    """Print the lines with these beginnings that lesson 11 printed on Linux, and compute nothing."""
    cells = json.loads((NOTEBOOKS / "11_fused_logprobs.ipynb").read_text("utf-8"))["cells"]
    lines = [line for cell in cells for output in cell.get("outputs", ()) for line in output.get("text", ())]
    print(*(f"stored: {line.rstrip()}" for line in lines if line.startswith(starts)), sep="\n")


fused = None  # the package's kernels need Triton itself
builder = Builder()
triton = SimpleNamespace(jit=Kernel)
tl = SimpleNamespace(
    constexpr=int, float32=np.float32, program_id=lambda axis: Kernel.program, load=load, store=store, dot=dot,
    arange=np.arange, full=np.full, zeros=np.zeros, maximum=np.maximum, where=np.where, exp=np.exp, log=np.log,
    max=np.max, sum=np.sum,
)  # fmt: skip
