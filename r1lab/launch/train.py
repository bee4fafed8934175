"""The commands that train: `zero`, `sft`, `pretrain`, the chain `r1`, and `hacking`; and `plan`.

The values of a preset are the defaults of a command's options.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from r1lab.sources import load_task
from r1lab.errors import InputError
from r1lab.evaluation.table import Table
from r1lab.report.pages import write_chain_report, write_report
from r1lab.sources.hub import LOCAL, SETS, save_traces
from r1lab.stages.pipeline import STAGES, Chain, R1Config
from r1lab.stages.sft_stages import SFT_RECIPES
from r1lab.stages.zero import PRESETS, Zero
from r1lab.training import estimate
from r1lab.training.config import GRPOConfig
from r1lab.training.processes import default_processes
from r1lab.training.rl import grpo
from r1lab.run import Run, first_process
from r1lab.training.sft import SFTConfig
from r1lab.training.sft import sft as fine_tune
from r1lab.world.corpus import describe
from r1lab.world.bases import PretrainConfig, run_pretrain

SFT_PRESETS = {"small": {}} | {
    name: {"model": one.model, "data": one.source, "config": one.sft} for name, one in SFT_RECIPES.items()
}
Flat = tyro.conf.arg(name="")  # the options of a configuration have no prefix
console = Console()


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
    if gpus < 0:
        raise InputError(f"{gpus} GPUs: give how many there are in all, or 0.")
    model = known[preset].model
    config = known[preset].sft if preset in SFT_RECIPES else known[preset].rl
    gpus = gpus or config.parallel.gpus
    count = gpus or config.processes or default_processes()
    if isinstance(config, GRPOConfig):
        config.check(count)
    shape, rows = estimate.shape_of(model), []
    for name, size in estimate.memory(config, shape, count).items():
        hosted = config.parallel.offload and name in estimate.SHARES
        rows.append((name + " (in the host's memory)" * hosted, f"{size / estimate.GB:.2f}"))
    kind = "GPUs" if gpus else "processes without a GPU"
    console.print(f"{preset}: {model} on {count} {kind}")
    console.print(Table(("memory of one process", "GB"), rows))
    console.print("Checked against two runs on CPUs, to a factor of 1.5; not run on any GPU yet.")
    available = memory_gb * estimate.GB if gpus else estimate.host_bytes() / count
    estimate.check_memory(config, shape, count, available)


@dataclass(frozen=True)
class Start:
    """Which run is started, or goes on.

    Attributes:
        name: the run's folder is runs/NAME; a stopped run goes on from there.
        resume: insist that there is a run to go on with; a finished one takes more --rollouts.
        overwrite: delete an earlier run of this name first.
    """

    name: str
    resume: bool = False
    overwrite: bool = False

    def check(self) -> None:
        if self.resume and not Run(f"runs/{self.name}").started:
            raise InputError(
                f"runs/{self.name}: there is no run to resume; start it without --resume."
            )


def zero(
    config: Annotated[Zero, Flat] = Zero(),
    preset: str = "cpu",
    start: Annotated[Start, Flat] = Start("zero"),
) -> None:
    """Train R1-Zero: reinforcement learning on a base model, and nothing else.

    Args:
        preset: which defaults the options have; also decides what --help shows.
    """
    start.check()
    run = grpo(config.model, config.open_task(), config.rl, **asdict(start))
    if first_process():  # of those that torchrun has started
        console.print(f"Report: {write_report(run.folder)}")


def pretrain(
    config: Annotated[PretrainConfig, Flat] = PretrainConfig(),
    preset: str = "base",
    name: str | None = None,
    out: Path | None = None,
    show_corpus: bool = False,
) -> None:
    """Pre-train a base model of the small world; goes on where it was stopped.

    Args:
        preset: which defaults the options have.
        name: the run's folder is runs/NAME (default: pretrain-PRESET).
        out: where the model goes (default: data/PRESET).
        show_corpus: print the corpus' table of behaviours and stop.
    """
    if show_corpus:
        console.print(describe(dict(config.corpora)))
        return
    out = out or Path("data", preset)
    console.print(f"Model: {run_pretrain(config, name or f'pretrain-{preset}', out)}")


def sft(
    model: tyro.conf.Positional[str] = tyro.MISSING,
    data: tyro.conf.Positional[str] = tyro.MISSING,
    config: Annotated[SFTConfig, Flat] = SFTConfig(),
    preset: str = "small",
    start: Annotated[Start, Flat] = Start("sft"),
) -> None:
    """Fine-tune a model on a data set: loss on the completions only.

    Args:
        model: a folder or Hub id.
        data: a folder of `datasets` or a .jsonl file, with the columns prompt and completion (texts or
            messages) or messages; or traces of the Hub, as openr1_math:train[:1000].
        preset: which defaults the options have; a recipe also names model and data.
    """
    estimate.check_machine(config, model)  # before the Hub is asked for the data
    rows = Path(data)
    if data.partition(":")[0] in SETS:
        rows = save_traces(data, LOCAL, opened=config.template == "r1")
    start.check()
    run = fine_tune(model, rows, config, **asdict(start))
    console.print(f"Model: {run.model}")


def r1(
    config: Annotated[R1Config, Flat] = R1Config(),
    name: str = "r1",
    first: Annotated[str, tyro.conf.arg(name="from")] = STAGES[0],
    last: Annotated[str, tyro.conf.arg(name="to")] = STAGES[-1],
    controls: bool = False,
    task: str = "",
) -> None:
    """Go through the chain: R1-Zero, cold start, reasoning RL, rejection sampling, R1, distillation.

    Args:
        name: the chain's folder is runs/NAME; a stopped chain goes on where it was.
        first: the stage to begin with; the one before it must be finished.
        last: the stage to end with.
        controls: instead, run the control arms of a chain that has come to Dev3.
        task: asked at every stage in place of the small world, as my_task.py:task. Its samples are
            filtered by its own check, and not rewritten.
    """
    chain = Chain(config, name, task=load_task(task) if task else None)
    if controls:
        chain.controls()
    else:
        chain.run(first, last)
    console.print(f"Report: {write_chain_report(chain.folder)}")


def hacking(config: Annotated[R1Config, Flat] = R1Config(), name: str = "r1") -> None:
    """Too many steps on a chain's reward model, from its Dev3: its score rises, what the person
    likes falls (v2 B.5). In the control arm that person pays. Also one of `r1lab r1 --controls`.

    Args:
        name: of the chain in runs/NAME, which has come to Dev3; give --seed as it had it.
    """
    found = Chain(config, name).hack()
    rows = []
    for payer, scores in found.items():
        for when in ("start", "short", "long"):
            shown = [f"{scores[when][judge]:.3f}" for judge in (*found, "agreement")]
            rows.append((payer, when, *shown))
    columns = ("paid by", "steps", *(f"score of the {judge}" for judge in found), "agreement")
    console.print(Table(columns, rows))
