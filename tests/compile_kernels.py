"""Compile every shipped configuration of the Triton kernels for an H100, without one.

    python -m tests.compile_kernels [--json]

Prints for each: registers, bytes spilled, shared memory, and how often some instructions occur.
Runs in a process of its own: Triton's interpreter, which the tests use, has to be off.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from r1lab.kernels import fused

HOPPER, AMPERE = GPUTarget("cuda", 90, 32), GPUTarget("cuda", 80, 32)
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
COUNTED = ("wgmma.mma_async", "mma.sync", "cp.async.bulk.tensor", "ex2.approx", ".f64", ".tf32")
POINTERS = {
    "statistics": "fp32", "chosens": "fp32", "lse": "fp32", "coefficients": "fp32", "ids": "i32",
}  # fmt: skip
NUMBERS = ("height", "width", "depth", "stride")


@dataclass(frozen=True)
class Case:
    """One kernel as it is launched."""

    kernel: str  # a name in r1lab.kernels.fused
    dtype: torch.dtype = torch.bfloat16
    entropy: bool = False
    hopper: bool = True

    def __str__(self) -> str:
        parts = [self.kernel, NAMES[self.dtype], *(["entropy"] if self.entropy else [])]
        return " ".join([*parts, "sm_90a" if self.hopper else "sm_80"])


CASES = [
    Case("combine"),
    Case("linear_statistics"),
    Case("linear_statistics", torch.float16),
    Case("linear_statistics", entropy=True),
    Case("linear_statistics", torch.float32),
    Case("linear_statistics", hopper=False),
    Case("linear_dlogits"),
    Case("linear_dlogits", entropy=True),
    Case("linear_dlogits", torch.float32),
    Case("linear_dlogits", hopper=False),
]


def source_of(case: Case) -> tuple[ASTSource, dict]:
    """The kernel with its arguments' types, as at a real size (widths divisible by 16), and how it
    is launched."""
    kernel = getattr(fused, case.kernel)
    forward = case.kernel == "linear_statistics"
    columns, depth, stages = fused.tile_for(case.dtype, forward and case.entropy, case.hopper)
    combine = case.kernel == "combine"
    options = {"num_warps": 4} if combine else {"num_warps": 8, "num_stages": stages}
    given = {"SPLITS": fused.SPLITS, "ROWS": fused.COMBINE_ROWS, "ENTROPY": case.entropy}
    constants = {name: value for name, value in given.items() if name in kernel.arg_names}
    name, kind = NAMES[case.dtype], {}
    for argument in kernel.arg_names:
        if argument in constants:
            kind[argument] = "constexpr"
        elif argument in ("x", "weight"):
            rows = fused.TILE_ROWS if argument == "x" else columns
            kind[argument] = f"tensordesc<{name}[{rows}, {depth}]>"
        elif argument in NUMBERS or argument == "scale":
            kind[argument] = "i32" if argument in NUMBERS else "fp32"
        else:
            output = "fp32" if combine else name
            kind[argument] = "*" + POINTERS.get(argument, output)
    aligned = [
        (index,)
        for index, argument in enumerate(kernel.arg_names)
        if kind[argument].startswith("*") or argument in ("width", "depth", "stride")
    ]
    attributes = {place: [["tt.divisibility", 16]] for place in aligned}
    return ASTSource(kernel, kind, constants, attributes), options


def assembler() -> Path:
    """NVIDIA's assembler that comes with Triton; the newest, which reads what Triton writes."""
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    return next(folder / name for name in ("ptxas-blackwell", "ptxas") if (folder / name).exists())


def measure(case: Case) -> dict:
    """Registers, spilled bytes, shared memory and instructions of a compiled case."""
    source, options = source_of(case)
    target = HOPPER if case.hopper else AMPERE
    compiled = triton.compile(source, target=target, options={**options, **fused.LAUNCH})
    ptx = compiled.asm["ptx"]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        done = subprocess.run(
            [assembler(), "-v", "-arch", "sm_90a" if case.hopper else "sm_80", "-o", os.devnull,
             file.name], capture_output=True, text=True, check=True,
        )  # fmt: skip
    stores, loads = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr).groups()
    return {
        "registers": int(re.search(r"Used (\d+) registers", done.stderr).group(1)),
        "spilled": max(int(stores), int(loads)),
        "shared": compiled.metadata.shared,
        **{word: ptx.count(word) for word in COUNTED},
    }


def main() -> None:
    table = {str(case): measure(case) for case in CASES}
    if "--json" in sys.argv:
        print(json.dumps(table))
        return
    print(f"{'':52} registers  spilled B  shared KB  " + "  ".join(COUNTED))
    for name, row in table.items():
        counts = "  ".join(f"{row[word]:{len(word)}}" for word in COUNTED)
        print(f"{name:52} {row['registers']:9}  {row['spilled']:9}  {row['shared'] / 1024:9.0f}  {counts}")


if __name__ == "__main__":
    main()
