"""r1lab: DeepSeek-R1, end to end, in notebooks that run."""

from importlib import import_module

__version__ = "0.1.0"
# Loaded when first asked for, so that `import r1lab` costs nothing.
PUBLIC = {
    "GRPOConfig": "r1lab.training.config",
    "Problem": "r1lab.task",
    "Run": "r1lab.api",
    "SFTConfig": "r1lab.training.sft",
    "Task": "r1lab.sources",
    "evaluate": "r1lab.api",
    "grpo": "r1lab.api",
    "sample": "r1lab.api",
    "sft": "r1lab.api",
}


def __getattr__(name: str):
    if name == "rewards":
        return import_module("r1lab.rewards")
    if name not in PUBLIC:
        raise AttributeError(f"module 'r1lab' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)
