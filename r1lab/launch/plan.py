"""`r1lab plan`: what a preset will need of memory and time, before anything is loaded."""

from rich.console import Console
from rich.table import Table
from transformers import AutoConfig

from r1lab.errors import InputError
from r1lab.stages.gpus import SHAPES
from r1lab.stages.zero import PRESETS
from r1lab.training import estimate
from r1lab.training.config import GRPOConfig
from r1lab.training.estimate import GB, GPUS, ModelShape

GPUS_PER_NODE = 8


def plan(
    preset: str = "qwen2.5-1.5b-1gpu", gpus: int = 0, memory_gb: float = 80.0, gpu: str = "h100"
) -> None:
    """Predict memory and time of a preset of `r1lab zero`; refuse what will not fit.

    Args:
        preset: see `r1lab zero --help`.
        gpus: how many in all, eight to a node; 0: as many as the preset is made for.
        memory_gb: of one GPU.
        gpu: whose rates the time is predicted with: h100 or a100.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}.")
    if gpu not in GPUS:
        raise InputError(f"the rates of {gpu!r} are not known; there are {', '.join(GPUS)}.")
    config = PRESETS[preset]
    count = gpus or config.parallel.gpus or max(1, config.processes)
    config.check(count)
    shape = SHAPES.get(config.model) or _shape_of(config.model)
    console = Console()
    console.print(
        f"{preset}: {config.model}, {shape.parameters / 1e6:,.1f} million weights, on {count} x "
        f"{gpu}; {config.questions} x {config.group_size} completions of at most "
        f"{config.cap(config.steps)} tokens a rollout"
    )
    console.print(_memory_table(config, shape, count))
    console.print(_time_table(config, shape, count, gpu))
    console.print(
        f"Assumed: questions of {estimate.PROMPT_TOKENS} tokens, completions of half the cap, and "
        f"of the data sheet's rates {estimate.TRAINING_SHARE:.0%} (products), "
        f"{estimate.DECODING_SHARE:.0%} (memory while decoding), {estimate.LINK_SHARE:.0%} (links);"
        f" {estimate.LAUNCH_SECONDS * 1e3:g} ms a layer and token to launch the torch sampler's "
        "operators. Not measured on several GPUs yet."
    )
    estimate.check_memory(config, shape, count, memory_gb * GB)


def _shape_of(model: str) -> ModelShape:
    try:
        return estimate.shape_of(AutoConfig.from_pretrained(model))
    except OSError:
        raise InputError(
            f"{model}: its config.json is not here, and the Hub is out of reach; connect, or plan a "
            f"preset of {', '.join(SHAPES)}, whose shapes are known."
        ) from None


def _memory_table(config: GRPOConfig, shape: ModelShape, count: int) -> Table:
    parts = estimate.memory(config, shape, count)
    table = Table("memory of one process", "GB")
    host = estimate.HOSTED if config.parallel.offload else ()
    for name, size in parts.items():
        note = " (in the host's memory)" if name in host else ""
        table.add_row(name + note, f"{size / GB:.2f}", end_section=name == list(parts)[-2])
    loading = estimate.host_memory(config, shape, count) / GB
    table.add_row("in the host's memory at most, while it loads or offloads", f"{loading:.2f}")
    return table


def _time_table(config: GRPOConfig, shape: ModelShape, count: int, gpu: str) -> Table:
    nodes = -(-count // GPUS_PER_NODE)
    parts = estimate.seconds(config, shape, count, GPUS[gpu], nodes)
    hours = sum(parts.values()) * config.rollouts / 3600
    table = Table("time of one rollout and its updates", "seconds")
    for name, value in parts.items():
        table.add_row(name, f"{value:.1f}", end_section=name == "messages")
    table.add_row(f"hours for {config.rollouts} rollouts, evaluations aside", f"{hours:.1f}")
    table.add_row("GPU-hours", f"{hours * count:.1f}")
    return table
