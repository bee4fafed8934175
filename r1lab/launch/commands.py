"""The commands that train, measure and show. A preset's values are the defaults of the options."""

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from r1lab.errors import InputError, require_known
from r1lab.evaluation.measure import evaluate
from r1lab.evaluation.suites import SuiteConfig, show_suite
from r1lab.evaluation.table import Table, summary_table
from r1lab.files import write_json
from r1lab.report.pages import stage_tables, write_chain_report, write_report
from r1lab.machine import memory_bytes, provenance
from r1lab.run import Run, first_process
from r1lab.sampling import SamplerName, VLLMConfig
from r1lab.sources import load_task
from r1lab.sources.hub import SETS, load_source, save_traces
from r1lab.stages.pipeline import STAGES, Chain, R1Config
from r1lab.stages.rl_stages import PRESETS, Flat, Zero
from r1lab.stages.sft_stages import SFT_RECIPES
from r1lab.training import estimate
from r1lab.training.config import GRPOConfig
from r1lab.training.estimate import open_model
from r1lab.training.processes import default_processes
from r1lab.training.recorder import first_of_each_level
from r1lab.training.rl import grpo
from r1lab.training.sft import SFTConfig, sft as fine_tune
from r1lab.world import FAMILIES, find_attempts
from r1lab.world.bases import PretrainConfig, run_pretrain
from r1lab.world.corpus import describe
from r1lab.world.skills import measure_skills

console = Console()


def plan(preset: str = "qwen2.5-1.5b-1gpu", gpus: int = 0, memory_gb: float = 80.0):
    """Predict the memory of a preset of `r1lab zero` or `r1lab sft`; refuse what will not fit.

    Args:
        preset: see `r1lab zero --help`.
        gpus: in all; 0: those that the preset is made for, or where it is made for none, this machine's cores.
        memory_gb: of one GPU.
    """
    known = {name: (one.model, one.rl) for name, one in PRESETS.items()}
    known |= {name: (one["model"], one["config"]) for name, one in SFT_RECIPES.items()}
    require_known(preset, known, "preset")
    if gpus < 0:
        raise InputError(f"{gpus} GPUs: give how many there are in all, or 0.")
    model, config = known[preset]
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
    available = memory_gb * estimate.GB if gpus else memory_bytes() / count
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

    def check(self):
        if self.resume and not Run(f"runs/{self.name}").started:
            raise InputError(f"runs/{self.name}: there is no run to resume; start it without --resume.")


def zero(
    config: Annotated[Zero, Flat] = Zero(),
    preset: str = "cpu",
    start: Annotated[Start, Flat] = Start("zero"),
):
    """Train R1-Zero: reinforcement learning on a base model, and nothing else.

    Args:
        preset: which defaults the options have; also decides what --help shows.
    """
    start.check()
    run = grpo(config.model, config.open_task(), config.rl, **asdict(start))
    if first_process():  # of those that torchrun has started
        summary = run.summary
        before, after = (f"{summary[name]['pass_at_1']:.1%}" for name in ("base", "final"))
        minutes = summary["wall_seconds"] / 60
        console.print(f"Right answers: {before} before training, {after} after, in {minutes:.1f} minutes.")
        console.print(f"Report: {write_report(run.folder)}")
        console.print("Next: lesson 03 (make lab or r1lab lab opens it).")


def pretrain(
    config: Annotated[PretrainConfig, Flat] = PretrainConfig(),
    preset: str = "base",
    name: str | None = None,
    out: Path | None = None,
    show_corpus: bool = False,
):
    """Pre-train a base model of the small world; goes on where it was stopped.

    Args:
        preset: which defaults the options have.
        name: the run's folder is runs/NAME (default: pretrain-PRESET).
        out: where the model goes (default: data/PRESET).
        show_corpus: print the corpus' table of behaviours and stop.
    """
    if show_corpus:
        return console.print(describe(dict(config.corpora)))
    out = out or Path("data", preset)
    console.print(f"Model: {run_pretrain(config, name or f'pretrain-{preset}', out)}")


def sft(
    model: tyro.conf.Positional[str] = tyro.MISSING,
    data: tyro.conf.Positional[str] = tyro.MISSING,
    config: Annotated[SFTConfig, Flat] = SFTConfig(),
    preset: str = "small",
    start: Annotated[Start, Flat] = Start("sft"),
):
    """Fine-tune a model on a data set: loss on the completions only.

    Args:
        model: a folder or Hub id.
        data: a folder of `datasets` or a .jsonl file, with the columns prompt and completion (texts or
            messages) or messages; or traces of the Hub, as openr1_math:train[:1000].
        preset: which defaults the options have; a recipe also names model and data.
    """
    estimate.check_machine(config, model)  # before the Hub is asked for the data
    if data.partition(":")[0] in SETS:
        data = save_traces(data, opened=config.template == "r1")
    start.check()
    run = fine_tune(model, data, config, **asdict(start))
    console.print(f"Model: {run.model}")


def r1(
    config: Annotated[R1Config, Flat] = R1Config(),
    name: str = "r1",
    first: Annotated[str, tyro.conf.arg(name="from")] = STAGES[0],
    last: Annotated[str, tyro.conf.arg(name="to")] = STAGES[-1],
    controls: bool = False,
    task: str = "",
):
    """Go through the chain: R1-Zero, cold start, reasoning RL, rejection sampling, R1, distillation.

    Args:
        name: the chain's folder is runs/NAME; a stopped chain goes on where it was.
        first: the stage to begin with; the one before it must be finished.
        last: the stage to end with.
        controls: instead, run the control arms of a chain that has come to Dev3.
        task: asked in place of the small world, as my_task.py:task; its own check filters its samples.
    """
    chain = Chain(config, name, task=load_task(task) if task else None)
    folder = chain.controls() if controls else chain.run(first, last)
    console.print(f"Report: {write_chain_report(folder)}")


def hacking(config: Annotated[R1Config, Flat] = R1Config(), name: str = "r1"):
    """Too many steps on a chain's reward model, from its Dev3: its score rises, what the person
    likes falls (v2 B.5). In the control arm that person pays. Also one of `r1lab r1 --controls`.

    Args:
        name: of the chain in runs/NAME, which has come to Dev3; give --seed as it had it.
    """
    runs = Chain(config, name).hack()
    rows = []
    for payer, scores in runs.items():
        for when in ("start", "short", "long"):
            rows.append((payer, when, *(f"{scores[when][judge]:.3f}" for judge in (*runs, "agreement"))))
    columns = ("paid by", "steps", *(f"score of the {judge}" for judge in runs), "agreement")
    console.print(Table(columns, rows))


def evaluate_model(
    folder: tyro.conf.Positional[str] = "",
    config: Annotated[SuiteConfig, Flat] = SuiteConfig("", "", max_tokens=0, template=""),
    data: str = "signs",
    task: str = "",
    sampler: SamplerName = "torch",
    vllm: VLLMConfig = VLLMConfig(),
    name: str = "",
    save: Path | None = None,
):
    """Accuracy on problems or on the paper's benchmarks, by its protocol (v2 D.1: T=0.6, top-p 0.95).

    With --suite, an answer has 32,768 tokens and the template r1; else 384, small, and 16 answers a problem.

    Args:
        folder: a model's folder or Hub id, as --model.
        data: a family of the small world, a .jsonl file, or a set of the Hub, as math:test[:100].
        task: its test problems, judged by its own check, as my_task.py:task or gym:NAME.
        sampler: what draws the answers: this package, or vLLM.
        name: with a suite, the results' folder is runs/NAME.
        save: without a suite, also write the numbers to this JSON file.
    """
    asked = task and load_task(task, template=config.template)
    usual = SuiteConfig("") if config.suite else SuiteConfig("", max_tokens=384, template="small")
    config = replace(
        config, model=folder or config.model, max_tokens=config.max_tokens or usual.max_tokens,
        template=config.template or usual.template,
    )  # fmt: skip
    if not config.model:
        raise InputError("name a model: a folder or a Hub id, as in r1lab eval data/zero.")
    opened = partial(open_model, sampler=sampler, vllm=vllm, max_tokens=config.max_tokens)
    if config.suite:
        folder = name or f"eval-{config.suite}-{Path(config.model).name}"
        return show_suite(config, opened, Path("runs", folder))
    few = config.problems
    asked = replace(asked, test=first_of_each_level(asked.test, few)) if task else _problems(data, few)
    drawing, tokenizer, _ = opened(config.model)
    started = time.monotonic()
    result = evaluate(
        drawing, tokenizer, asked, k=config.samples or 16, temperature=config.temperature,
        top_p=config.top_p, max_tokens=config.max_tokens, seed=config.seed, attempts=find_attempts,
        template=config.template,
    )  # fmt: skip
    summary = _by_level(result)
    titles = {f"Level {level}": block for level, block in summary["by_level"].items()}
    console.print(summary_table({"All levels": summary} | titles))
    if save:
        summary |= provenance() | {"seconds": round(time.monotonic() - started, 1)}
        summary["date"] = time.strftime("%Y-%m-%d", time.gmtime())
        write_json(save, summary)


def _by_level(result):
    """A summary in which each level, too, has a whole one."""
    summary = result.summary()
    for level in summary["by_level"]:
        rows = [row for row, at in enumerate(result.levels) if str(at) == level]
        summary["by_level"][level] = block = {"n": len(rows)} | result.rows(rows).summary()
        del block["by_level"]
    return summary


def skills(
    model: tyro.conf.Positional[str], samples: int = 4, problems: int = 64, save: Path | None = None
):
    """Skills and habits of a model, measured apart, for each family of the small world.

    Args:
        model: a folder or Hub id.
        samples: of each problem.
        problems: of each level.
        save: also write the numbers to this JSON file.
    """
    sampler, tokenizer, _ = open_model(model)
    measured = {
        family: asdict(measure_skills(sampler, tokenizer, _problems(family, problems), k=samples))
        for family in ("signs", "countdown", "sums")
    }
    names = [name for name in measured["signs"] if name != "family"]
    rows = [[name.replace("_", " "), *(_share(m[name]) for m in measured.values())] for name in names]
    console.print(Table(("Skill or habit", *measured), rows))
    if save:
        write_json(save, measured)


def report(run: tyro.conf.Positional[Path]):
    """Write the report of a run folder, or of a whole chain's, whose tables are printed, too."""
    if not (run / "base" / "benchmarks.json").exists():  # which a chain measures first
        return console.print(f"Report: {write_report(run)}")
    path = write_chain_report(run)
    for table in stage_tables(Run(run).summary).values():
        print(f"{table}\n")
    console.print(f"Report: {path}")


def _problems(data, count):
    """Those of a family, a file or a set of the Hub; the first `count` of each level, or all."""
    return first_of_each_level(load_source(f"data/test_{data}.jsonl" if data in FAMILIES else data), count)


def _share(value):
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
