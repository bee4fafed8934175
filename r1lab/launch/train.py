"""The commands that train: `zero`, `sft`, `pretrain`, the chain `r1`, and `hacking`.

Those with presets are made of one: its values are the defaults of their options.
"""

from collections.abc import Callable
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
from r1lab.stages.sft_stages import SFT_RECIPES, Distillation
from r1lab.stages.zero import Zero
from r1lab.training.estimate import check_machine
from r1lab.training.rl import grpo
from r1lab.run import Run, first_process
from r1lab.training.sft import SFTConfig
from r1lab.training.sft import sft as fine_tune
from r1lab.world.corpus import describe
from r1lab.world.bases import PretrainConfig, run_pretrain

SFT_PRESETS = {"small": None, **SFT_RECIPES}
Flat = tyro.conf.arg(name="")  # the options of a configuration have no prefix
console = Console()


def zero_command(defaults: Zero) -> Callable:
    """Make the command `zero`."""

    def zero(
        config: Annotated[Zero, Flat] = defaults,
        preset: str = "cpu",
        name: str = "zero",
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Train R1-Zero: reinforcement learning on a base model, and nothing else.

        Args:
            preset: which defaults the options have; also decides what --help shows.
            name: the run's folder is runs/NAME; a stopped run goes on from there.
            resume: insist that there is a run to go on with.
            overwrite: delete an earlier run of this name first.
        """
        _check_resume(name, resume)
        run = grpo(
            config.model, config.open_task(), config.rl, name, resume=resume, overwrite=overwrite
        )
        if first_process():  # of those that torchrun has started
            console.print(f"Report: {write_report(run.folder)}")

    return zero


def pretrain_command(defaults: PretrainConfig) -> Callable:
    """Make the command `pretrain`."""

    def pretrain(
        config: Annotated[PretrainConfig, Flat] = defaults,
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
        folder = run_pretrain(config, name or f"pretrain-{preset}", out or Path("data") / preset)
        console.print(f"Model: {folder}")

    return pretrain


def sft_command(recipe: Distillation | None) -> Callable:
    """Make the command `sft`."""

    def sft(
        model: tyro.conf.Positional[str] = recipe.model if recipe else tyro.MISSING,
        data: tyro.conf.Positional[str] = recipe.source if recipe else tyro.MISSING,
        config: Annotated[SFTConfig, Flat] = recipe.sft if recipe else SFTConfig(),
        preset: str = "small",
        name: str = "sft",
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Fine-tune a model on a data set: loss on the completions only.

        Args:
            model: a folder or Hub id.
            data: a folder of `datasets` with the columns prompt and completion, or traces of the
                Hub, as openr1_math:train[:1000].
            preset: which defaults the options have; a recipe also names model and data.
            name: the run's folder is runs/NAME; a stopped run goes on from there.
            resume: insist that there is a run to go on with.
            overwrite: delete an earlier run of this name first.
        """
        check_machine(config, model)  # before the Hub is asked for the data
        rows = Path(data)
        if data.partition(":")[0] in SETS:
            rows = save_traces(data, LOCAL, opened=config.template == "r1")
        _check_resume(name, resume)
        run = fine_tune(model, rows, config, name, resume=resume, overwrite=overwrite)
        console.print(f"Model: {run.model}")

    return sft


def _check_resume(name: str, resume: bool) -> None:
    run = Run(Path("runs") / name)
    if resume and not run.started:
        raise InputError(f"{run.folder}: there is no run to resume; start it without --resume.")


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
