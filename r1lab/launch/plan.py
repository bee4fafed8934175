"""`r1lab plan`: what a preset will need of memory and time, before anything is loaded."""

import os

from rich.console import Console
from rich.table import Table

from r1lab.errors import InputError
from r1lab.stages.recipes import SFT_RECIPES
from r1lab.stages.zero import PRESETS
from r1lab.training import estimate
from r1lab.training.config import GRPOConfig
from r1lab.training.processes import default_processes
from r1lab.training.estimate import GB, GPUS, ModelShape, Settings

GPUS_PER_NODE = 8


def plan(
    preset: str = "qwen2.5-1.5b-1gpu", gpus: int = 0, memory_gb: float = 80.0, gpu: str = "h100"
) -> None:
    """Predict memory and time of a preset of `r1lab zero` or `r1lab sft`; refuse what will not fit.

    Args:
        preset: see `r1lab zero --help`.
        gpus: how many in all, eight to a node; 0: as many as the preset is made for. One that is
            made for none is planned for this machine's cores.
        memory_gb: of one GPU.
        gpu: whose rates the time is predicted with: h100 or a100.
    """
    known = PRESETS | SFT_RECIPES
    if preset not in known:
        raise InputError(f"unknown preset {preset!r}; there are {', '.join(known)}.")
    if gpu not in GPUS:
        raise InputError(f"the rates of {gpu!r} are not known; there are {', '.join(GPUS)}.")
    if gpus < 0 or memory_gb <= 0:
        raise InputError(f"{gpus} GPUs of {memory_gb:g} GB: neither can be below 0, nor memory 0.")
    model, config = known[preset].model, known[preset].sft if preset in SFT_RECIPES else known[preset].rl
    gpus = gpus or config.parallel.gpus
    count = gpus or config.processes or default_processes()
    if isinstance(config, GRPOConfig):
        config.check(count)
        asked = f"{config.questions} x {config.group_size} completions of at most "
        asked += f"{config.cap(config.steps)} tokens a rollout"
    else:
        asked = f"{config.tokens_per_step:,} tokens a step"
    shape = estimate.shape_named(model)
    console, where = Console(), f"{count} x {gpu}" if gpus else f"{count} processes without a GPU"
    console.print(
        f"{preset}: {model}, {shape.parameters / 1e6:,.1f} million weights, on {where}; {asked}"
    )
    console.print(_memory_table(config, shape, count))
    available = memory_gb * GB
    if gpus:
        console.print(_time_table(config, shape, count, gpu))
        console.print(ASSUMED)
    else:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / count
    console.print(CHECKED)
    estimate.check_memory(config, shape, count, available)


ASSUMED = (
    f"Assumed: questions of {estimate.PROMPT_TOKENS} tokens, completions of half the cap, documents "
    f"of {estimate.TRACE_TOKENS:,}, no padding, and of the data sheet's rates "
    f"{estimate.TRAINING_SHARE:.0%} (products), {estimate.DECODING_SHARE:.0%} (memory while "
    f"decoding), {estimate.LINK_SHARE:.0%} (links); {estimate.LAUNCH_SECONDS * 1e3:g} ms a layer "
    f"and token to launch the torch sampler's operators, {estimate.VLLM_STEP_SECONDS * 1e3:g} ms a "
    "token for vLLM to decide what to compute."
)
CHECKED = (
    "Memory: checked against two runs on CPUs, to a factor of 1.5. Time: not checked against any "
    "run. Not run on any GPU yet."
)


def _memory_table(config: Settings, shape: ModelShape, count: int) -> Table:
    parts = estimate.memory(config, shape, count)
    table = Table("memory of one process", "GB")
    host = estimate.HOSTED if config.parallel.offload else ()
    for name, size in parts.items():
        note = " (in the host's memory)" if name in host else ""
        table.add_row(name + note, f"{size / GB:.2f}", end_section=name == list(parts)[-2])
    loading = estimate.host_memory(config, shape, count) / GB
    table.add_row("in the host's memory at most, while it loads or offloads", f"{loading:.2f}")
    return table


def _time_table(config: Settings, shape: ModelShape, count: int, gpu: str) -> Table:
    nodes = -(-count // GPUS_PER_NODE)
    parts = estimate.seconds(config, shape, count, GPUS[gpu], nodes)
    rl = isinstance(config, GRPOConfig)
    table = Table(f"time of one {'rollout and its updates' if rl else 'step'}", "seconds")
    for name, value in parts.items():
        table.add_row(name, f"{value:.1f}", end_section=name == "messages")
    if rl:
        hours = sum(parts.values()) * config.rollouts / 3600
        table.add_row(f"hours for {config.rollouts} rollouts, evaluations aside", f"{hours:.1f}")
        table.add_row("GPU-hours", f"{hours * count:.1f}")
    return table
