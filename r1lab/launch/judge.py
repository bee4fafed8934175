"""The commands that measure and show: `eval`, `skills` and `report`."""

import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.text import Text
from transformers import PretrainedConfig

from r1lab.errors import InputError
from r1lab.evaluation.measure import Evaluation, evaluate
from r1lab.evaluation.suites import NOWHERE, SuiteConfig, long_tail, run_suite, suite_table
from r1lab.evaluation.table import Table, put_between, summary_table
from r1lab.models.policy import Policy, load_model
from r1lab.report.pages import stage_tables, write_chain_report, write_report
from r1lab.run import Run
from r1lab.sampling import Sampler, SamplerName, VLLMConfig, build_sampler
from r1lab.sources.hub import load_source
from r1lab.task import Problem
from r1lab.training.estimate import CACHE_GROWTH, PROMPT_TOKENS, shape_of
from r1lab.training.provenance import command, commit, machine
from r1lab.world import FAMILIES, find_attempts
from r1lab.world.corpus import few_shot
from r1lab.world.skills import measure_skills

console = Console()
FREE = ("suite", "benchmarks", "seed", "batch")  # what the paper's protocol leaves to choose
UNLIMITED = 1 << 30  # where a model's settings name no longest sequence


def evaluate_model(
    folder: tyro.conf.Positional[Path | None] = None,
    model: Path | None = None,
    data: str = "signs",
    suite: str = "",
    benchmarks: tuple[str, ...] = (),
    samples: int | None = None,
    problems: int = 0,
    temperature: float = 0.6,
    top_p: float = 0.95,
    max_tokens: int | None = None,
    template: str | None = None,
    shots: int = 0,
    seed: int = 0,
    batch: int = 8,
    sampler: SamplerName = "torch",
    vllm: VLLMConfig = VLLMConfig(),
    name: str = "",
    save: Path | None = None,
) -> None:
    """Accuracy on problems or on the paper's benchmarks, by its protocol (v2 D.1: T=0.6, top-p 0.95).

    Args:
        folder: a model's folder or Hub id.
        model: the same, as an option.
        data: a family's name (its held-out problems in data/), a file, one JSON object a line, or
            a set of the Hub, as gsm8k or math:test[:100] (see r1lab.sources.hub).
        suite: r1 for the paper's benchmarks, with its numbers beside; goes on where it was stopped.
        benchmarks: those of the suite; all if none is named.
        samples: of each problem; 16, or what the suite has.
        problems: the first so many of each level, or of each benchmark of the suite; 0 for all.
        max_tokens: of an answer; 384, or 32,768 with a suite.
        template: see r1lab.sources.templates; small, or r1 with a suite.
        shots: solved examples of the small world before each question, as 2.
        batch: with a suite, problems asked together.
        sampler: what draws the answers: this package, or vLLM where it is installed.
        name: with a suite, the results' folder is runs/NAME.
        save: without a suite, also write the numbers to this JSON file.
    """
    chosen = _given(folder or model)
    if shots and (suite or template not in (None, "small")):
        raise InputError("solved examples are of the small world: leave out --suite and --template.")
    if suite:
        config = SuiteConfig(
            str(chosen), suite, benchmarks, samples or 0, problems, temperature, top_p,
            max_tokens or SuiteConfig.max_tokens, template or SuiteConfig.template, seed, batch,
        )  # fmt: skip
        evaluate_suite(config, name, sampler, vllm)
        return
    asked = _problems(data, problems)
    drawing, tokenizer, _ = open_model(str(chosen), sampler, vllm, max_tokens or 384)
    started = time.monotonic()
    result = evaluate(
        drawing, tokenizer, asked, k=samples or 16, temperature=temperature, top_p=top_p,
        max_tokens=max_tokens or 384, seed=seed,
        template=few_shot(shots, seed) if shots else template or "small", attempts=find_attempts,
    )  # fmt: skip
    _show_evaluation(result, time.monotonic() - started, save)


def _show_evaluation(result: Evaluation, seconds: float, file: Path | None) -> None:
    """Print the numbers; with what they were made by and on, they go to the file if one is given."""
    measured = result.summary() | {"by_level": _by_level(result)}
    levels = {f"Level {level}": block for level, block in measured["by_level"].items()}
    console.print(summary_table({"All levels": measured} | levels))
    if file:
        when = {"seconds": round(seconds, 1), "date": time.strftime("%Y-%m-%d", time.gmtime())}
        made = {"command": command(), "commit": commit(), **when, "machine": machine()}
        file.write_text(json.dumps(measured | made, indent=1) + "\n", encoding="utf-8")


def _by_level(result: Evaluation) -> dict[str, dict]:
    """A summary of each level alone, with its number of problems."""
    blocks = {}
    for level in sorted(set(result.levels.tolist())):
        ids = [name for name, at in zip(result.ids, result.levels, strict=True) if at == level]
        blocks[str(level)] = {"n": len(ids), **result.select(ids).summary()}
        del blocks[str(level)]["by_level"]
    return blocks


def skills(
    model: tyro.conf.Positional[Path],
    samples: int = 4,
    problems: int = 64,
    save: Path | None = None,
) -> None:
    """Skills and habits of a model, measured apart, for each family of the small world.

    Args:
        model: a folder or Hub id.
        samples: of each problem.
        problems: of each level.
        save: also write the numbers to this JSON file.
    """
    sampler, tokenizer, _ = open_model(str(model))
    measured = {}
    for family in ("signs", "countdown", "sums"):
        chosen = _problems(family, problems)
        measured[family] = asdict(measure_skills(sampler, tokenizer, chosen, k=samples))
    names = [name for name in measured["signs"] if name != "family"]
    rows = [[name.replace("_", " "), *(_share(m[name]) for m in measured.values())] for name in names]
    console.print(Table(("Skill or habit", *measured), rows))
    if save:
        save.write_text(json.dumps(measured, indent=1) + "\n")


def report(run: tyro.conf.Positional[Path], readme: Path | None = None) -> None:
    """Write the report of a run folder, or of a whole chain's, whose tables are printed, too.

    Args:
        readme: of a chain, also put the stage table between this file's lines
            `<!-- stages:begin -->` and `<!-- stages:end -->`.
    """
    if not (run / "base" / "benchmarks.json").exists():  # which a chain measures first
        console.print(f"Report: {write_report(run)}")
        return
    path, tables = write_chain_report(run), stage_tables(Run(run).summary)
    for table in tables.values():
        print(f"{table}\n")
    if readme:
        put_between(readme, "stages", str(tables["chain"]))
    console.print(f"Report: {path}")


def evaluate_suite(config: SuiteConfig, name: str, sampler: SamplerName, vllm: VLLMConfig) -> None:
    """Run or go on with an evaluation in `runs/name`, and print its table.

    Which sampler answers may change when it goes on: the protocol is the same."""
    folder = Path("runs") / (name or f"eval-{config.suite}-{Path(config.model).name}")
    opened, rows = partial(open_model, sampler=sampler, vllm=vllm, max_tokens=config.max_tokens), {}
    for benchmark, result in run_suite(config, opened, folder):
        rows[benchmark] = result
        console.print(f"{result['title']}: pass@1 {result['pass_at_1']:.1f}")
    console.print(suite_table(rows))
    usual = asdict(SuiteConfig(config.model)) | {name: getattr(config, name) for name in FREE}
    changed = [f"{key} {value}" for key, value in asdict(config).items() if value != usual[key]]
    if changed:
        console.print(f"A trial ({', '.join(changed)}), so not to be compared with the paper.")
    console.print(f"Stored in {folder}. MMLU, DROP, IF-Eval and more, by lm-eval (pip install lm_eval[hf]):")
    console.print(Text(long_tail(config, folder)), soft_wrap=True)
    console.print(NOWHERE)


def open_model(
    path: str, sampler: SamplerName = "torch", vllm: VLLMConfig = VLLMConfig(), max_tokens: int = 1024
) -> tuple[Sampler, object, int]:
    """(sampler, tokenizer, longest sequence): on a GPU in bfloat16 where there is one.

    There the torch sampler takes as many completions of `max_tokens` at a time as fit."""
    on_gpu = torch.cuda.is_available()
    model, tokenizer = load_model(path, torch.bfloat16 if on_gpu else torch.float32)
    if on_gpu and sampler == "torch":  # vLLM puts weights of its own there
        model = model.to("cuda")
    Policy(model)  # refuses what the sampler cannot score, and speeds up its linear layers
    longest = getattr(model.config, "max_position_embeddings", None) or UNLIMITED
    drawing = build_sampler(sampler, model, tokenizer, vllm)
    if on_gpu and sampler == "torch":
        drawing.max_rows = rows_that_fit(model.config, max_tokens, torch.cuda.mem_get_info()[0])
    return drawing, tokenizer, longest


def rows_that_fit(config: PretrainedConfig, max_tokens: int, free: int) -> int:
    """How many completions, 256 at most, have keys and values that fill 0.8 of the free bytes."""
    try:
        token = shape_of(config).kv_bytes(bytes_each=2)
    except InputError:  # a model of which nothing is predicted
        return 256
    return max(1, min(256, int(0.8 * free / ((PROMPT_TOKENS + max_tokens) * CACHE_GROWTH * token))))


def _given(model: Path | None) -> Path:
    if model is None:
        raise InputError("name a model: a folder or a Hub id, as in r1lab eval data/zero.")
    return model


def _problems(data: str, count: int) -> list[Problem]:
    """Those of a family, a file or a set of the Hub; the first `count` of each level, or all."""
    problems = load_source(f"data/test_{data}.jsonl" if data in FAMILIES else data)
    levels = sorted({problem.level for problem in problems})
    of_level = ([p for p in problems if p.level == level] for level in levels)
    return [p for own in of_level for p in own[:count]] if count else problems


def _share(value) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
