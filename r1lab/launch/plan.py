"""`r1lab plan`: the memory that a preset will need, before anything is loaded."""

from rich.console import Console
from rich.table import Table

from r1lab.errors import InputError
from r1lab.stages.sft_stages import SFT_RECIPES
from r1lab.stages.zero import PRESETS
from r1lab.training import estimate
from r1lab.training.config import GRPOConfig
from r1lab.training.estimate import GB
from r1lab.training.processes import default_processes


def plan(preset: str = "qwen2.5-1.5b-1gpu", gpus: int = 0, memory_gb: float = 80.0) -> None:
    """Predict the memory of a preset of `r1lab zero` or `r1lab sft`; refuse what will not fit.

    Args:
        preset: see `r1lab zero --help`.
        gpus: how many in all; 0: the number that the preset is made for. One that is made for none is
            planned for this machine's cores.
        memory_gb: of one GPU.
    """
    known = PRESETS | SFT_RECIPES
    if preset not in known:
        raise InputError(f"unknown preset {preset!r}; there are {', '.join(known)}.")
    if gpus < 0 or memory_gb <= 0:
        raise InputError(f"{gpus} GPUs of {memory_gb:g} GB: neither can be below 0, nor memory 0.")
    model = known[preset].model
    config = known[preset].sft if preset in SFT_RECIPES else known[preset].rl
    gpus = gpus or config.parallel.gpus
    count = gpus or config.processes or default_processes()
    asked = "fine-tuning"
    if isinstance(config, GRPOConfig):
        config.check(count)
        asked = f"{config.questions} x {config.group_size} completions of at most "
        asked += f"{config.cap(config.steps)} tokens a rollout"
    shape = estimate.shape_named(model)
    table, hosted = Table("memory of one process", "GB"), "in the host's memory"
    for name, size in estimate.memory(config, shape, count).items():
        note = f" ({hosted})" if config.parallel.offload and name in estimate.HOSTED else ""
        table.add_row(name + note, f"{size / GB:.2f}")
    loading = estimate.host_memory(config, shape, count) / GB
    table.add_row(f"{hosted} at most, while it loads or offloads", f"{loading:.2f}")
    console = Console()
    console.print(
        f"{preset}: {model}, {shape.parameters / 1e6:,.1f} million weights, on "
        f"{gpus or count} {'GPUs' if gpus else 'processes without a GPU'}; {asked}"
    )
    console.print(table)
    console.print("Checked against two runs on CPUs, to a factor of 1.5; not run on any GPU yet.")
    available = memory_gb * GB if gpus else estimate.host_bytes() / count
    estimate.check_memory(config, shape, count, available)
