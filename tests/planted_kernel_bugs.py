"""Known bugs of such kernels, planted one by one: `python -m tests.planted_kernel_bugs`.

Each is a small change to a copy of r1lab/kernels, most of them made by some project before (the
thread stands beside it). The table tells which check kills it; a bug that survives is a hole in
the tests, and the exit code is 1.
"""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from tests.kernel_checks import (
    Case, check_linear, check_peaked_target, check_row_alone_and_in_a_batch, check_waves_add_up, load,
)  # fmt: skip

SOURCE = Path(__file__).parents[1] / "r1lab" / "kernels"
NUMBER = itertools.count()
SMALL = Case(n=5, hidden=16, vocab=100)


@dataclass(frozen=True)
class Bug:
    """One change in one file, where it happened, and the check that must notice it."""

    name: str
    file: str
    right: str
    wrong: str
    thread: str
    check: Callable[[SimpleNamespace], None]


def linear(rung: str = "fused", **options) -> Callable:
    return partial(check_linear, rung=rung, case=Case(**{**vars(SMALL), **options}))


ONLY_ENTROPY = (False, True, False)
BUGS = [
    Bug("columns past the vocabulary count as logit 0", "fused.py",
        'z = tl.where(columns[None, :] < width, z, float("-inf"))', "z = z",
        "verl#2899, verl PR#5349", linear()),
    Bug("the running maximum starts at 0", "fused.py",
        'top = tl.full([ROWS], float("-inf"), SUM)', "top = tl.zeros([ROWS], SUM)",
        "SkyRL PR#2141", linear(rows="low")),
    Bug("splits that do not exist have maximum 0", "fused.py",
        'mask=splits < SPLITS, other=float("-inf")', "mask=splits < SPLITS, other=0.0",
        "SkyRL PR#2141", linear(rows="low")),
    Bug("-inf times 0 in the entropy", "fused.py",
        'gap = tl.where(x == float("-inf"), 0.0, x - new[:, None])', "gap = x - new[:, None]",
        "verl PR#5349", linear()),
    Bug("the moment is not moved with the maximum", "fused.py",
        "shrink * (moment + mass * shift)", "shrink * moment", "online softmax", linear(vocab=5000)),
    Bug("the moment is not moved when splits merge", "fused.py",
        'moment += masses * tl.where(top == float("-inf"), 0.0, top - best[:, None])', "moment += 0.0",
        "online softmax", linear(vocab=300)),
    Bug("p is rounded before the target is added", "fused.py",
        "hit - tl.exp2(log2_p) * factor",
        "hit - tl.exp2(log2_p).to(tl.float16).to(tl.float32) * factor",
        "Liger PR#1329", partial(check_peaked_target, rung="fused")),
    Bug("no gradient of the target", "fused.py", "dz = hit - ", "dz = 0.0 * hit - ",
        "Liger PR#1268", linear(grads=(True, False, False))),
    Bug("one gradient for all tokens", "logprob.py",
        "log]) / temperature", "log]).mean(1, True).expand(3, len(logp)) / temperature",
        "Liger#968, Liger PR#1298", linear()),
    Bug("the temperature is missing in the gradient", "logprob.py",
        "log]) / temperature", "log])",
        "trl#4159", linear()),
    Bug("the entropy's gradient is lost", "logprob.py",
        "logp - lse + log * entropy", "logp - lse", "TRL's chunked log-probs",
        linear(grads=ONLY_ENTROPY)),
    Bug("rows with a gradient of the entropy alone are skipped", "logprob.py",
        "waves((factors != 0).any(0)", "waves(factors[0] != 0", "skipped rows",
        linear(grads=ONLY_ENTROPY)),
    Bug("later waves overwrite the weight's gradient", "logprob.py",
        "beta = 0 if first else 1", "beta = 0", "waves", partial(check_waves_add_up, rung="fused")),
    Bug("the weight's gradient starts from what memory held", "logprob.py",
        "beta = 0 if first else 1", "beta = 1", "PyTorch PR#196134", linear()),
    Bug("logits are rounded to 16 bits", "fused.py",
        "    return tile\n\n\n@triton.jit\n@no_type_check\ndef fold",
        "    return tile.to(tl.float16).to(SUM)\n\n\n@triton.jit\n@no_type_check\ndef fold",
        "Liger#1432", linear()),
    Bug("splits depend on the number of rows", "fused.py",
        "span = tl.cdiv(tl.cdiv(width, COLUMNS), SPLITS) * COLUMNS",
        "span = tl.cdiv(tl.cdiv(width, COLUMNS), tl.minimum(SPLITS, tl.cdiv(height, 16))) * COLUMNS",
        "RL-Kernel#148, vllm#49367", check_row_alone_and_in_a_batch),
    Bug("a target at the first column of a tile is missed", "fused.py",
        "hit = (chosen_ids >= column)", "hit = (chosen_ids > column)", "targets at edges", linear()),
    Bug("the last, partial tile is left out", "fused.py",
        "triton.cdiv(width, matrices[1].block_shape[0])", "max(1, width // matrices[1].block_shape[0])",
        "odd vocabularies", linear()),
    Bug("masked rows are computed", "logprob.py",
        "for rows in waves(mask,", "for rows in waves(mask | True,",
        "masked NaNs leak", linear(masked=0.5, n=20)),
    Bug("gradients reach masked rows", "logprob.py",
        "return torch.where(mask, stacked, 0)", "return stacked",
        "masked NaNs leak", linear(masked=0.5, n=20)),
    Bug("chunked: the old mass is not shrunk", "chunked.py",
        "return new, shrink * mass + z.exp_().sum(1), moment",
        "return new, mass + z.exp_().sum(1), moment", "online softmax",
        linear("chunked", n=200, vocab=5003)),
    Bug("chunked: a target of another slab is added", "chunked.py",
        "torch.where(inside, target, 0)", "target", "targets at edges",
        linear("chunked", n=200, vocab=5003)),
]  # fmt: skip


@contextmanager
def copied(right: str = "", wrong: str = "", file: str = "") -> Iterator[SimpleNamespace]:
    """A copy of the kernels under another name, with one change; the tests' type checker is off."""
    name = f"planted_kernels_{next(NUMBER)}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).mkdir()
        for path in SOURCE.glob("*.py"):
            text = path.read_text(encoding="utf-8")
            if path.name == file:
                assert text.count(right) == 1, f"{file} holds {text.count(right)} times: {right}"
                text = text.replace(right, wrong)
            (Path(folder) / name / path.name).write_text(text.replace("r1lab.kernels", name))
        sys.path.insert(0, folder)
        try:
            yield load(name)
        finally:
            sys.path.remove(folder)


def verdict(bug: Bug) -> str:
    """What the check said of the kernels with this bug; "" when it noticed nothing."""
    with copied(bug.right, bug.wrong, bug.file) as kernels, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            bug.check(kernels)
        except (AssertionError, RuntimeError) as error:
            return (str(error).strip().splitlines() or ["an assertion failed"])[0]
    return ""


def check_name(bug: Bug) -> str:
    return getattr(bug.check, "func", bug.check).__name__


def main() -> int:
    """Print the kill table."""
    torch.set_num_threads(1)
    survivors = 0
    print(f"{'bug':56} {'seen in':28} {'killed by':32} what it said")
    for bug in BUGS:
        said = verdict(bug)
        survivors += not said
        killer = check_name(bug) if said else "SURVIVES"
        print(f"{bug.name:56} {bug.thread:28} {killer:32} {said[:70]}", flush=True)
    print(f"{len(BUGS) - survivors} of {len(BUGS)} bugs are killed")
    return int(survivors > 0)


if __name__ == "__main__":
    raise SystemExit(main())
