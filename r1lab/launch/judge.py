"""The commands that measure and show: `eval`, `skills` and `report`."""

import json
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

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
from r1lab.run import Run, provenance
from r1lab.sampling import Sampler, SamplerName, VLLMConfig, build_sampler
from r1lab.sources.hub import load_source
from r1lab.task import Problem
from r1lab.training.estimate import CACHE_GROWTH, PROMPT_TOKENS, kv_bytes
from r1lab.training.recorder import first_of_each_level
from r1lab.world import FAMILIES, find_attempts
from r1lab.world.corpus import few_shot
from r1lab.world.skills import measure_skills

Flat = tyro.conf.arg(name="")  # the options of a configuration have no prefix
console = Console()
FREE = ("suite", "benchmarks", "seed", "batch")  # what the paper's protocol leaves to choose
UNLIMITED = 1 << 30  # where a model's settings name no longest sequence


def evaluate_model(
    folder: tyro.conf.Positional[str] = "",
    config: Annotated[SuiteConfig, Flat] = SuiteConfig("", "", max_tokens=0, template=""),
    data: str = "signs",
    shots: int = 0,
    sampler: SamplerName = "torch",
    vllm: VLLMConfig = VLLMConfig(),
    name: str = "",
    save: Path | None = None,
) -> None:
    """Accuracy on problems or on the paper's benchmarks, by its protocol (v2 D.1: T=0.6, top-p 0.95).

    With --suite, an answer has 32,768 tokens and the template r1; else 384 and small, and each problem
    is asked 16 times.

    Args:
        folder: a model's folder or Hub id, as --model.
        data: a family's name (its held-out problems in data/), a file, one JSON object a line, or
            a set of the Hub, as gsm8k or math:test[:100] (see r1lab.sources.hub).
        shots: solved examples of the small world before each question, as 2.
        sampler: what draws the answers: this package, or vLLM where it is installed.
        name: with a suite, the results' folder is runs/NAME.
        save: without a suite, also write the numbers to this JSON file.
    """
    config = replace(config, model=folder or config.model)
    if not config.model:
        raise InputError("name a model: a folder or a Hub id, as in r1lab eval data/zero.")
    if shots and (config.suite or config.template not in ("", "small")):
        raise InputError("solved examples are of the small world: leave out --suite and --template.")
    tokens = config.max_tokens or 384
    if config.suite:
        usual = SuiteConfig(config.model)
        config = replace(config, max_tokens=config.max_tokens or usual.max_tokens,
                         template=config.template or usual.template)  # fmt: skip
        return evaluate_suite(config, name, sampler, vllm)
    asked = _problems(data, config.problems)
    drawing, tokenizer, _ = open_model(config.model, sampler, vllm, tokens)
    started = time.monotonic()
    result = evaluate(
        drawing, tokenizer, asked, k=config.samples or 16, temperature=config.temperature,
        top_p=config.top_p, max_tokens=tokens, seed=config.seed, attempts=find_attempts,
        template=few_shot(shots, config.seed) if shots else config.template or "small",
    )  # fmt: skip
    summary = result.summary() | {"by_level": _by_level(result)}
    titles = {f"Level {level}": block for level, block in summary["by_level"].items()}
    console.print(summary_table({"All levels": summary} | titles))
    if save:
        seconds, date = round(time.monotonic() - started, 1), time.strftime("%Y-%m-%d", time.gmtime())
        made = provenance() | {"seconds": seconds, "date": date}
        save.write_text(json.dumps(summary | made, indent=1) + "\n", encoding="utf-8")


def _by_level(result: Evaluation) -> dict[str, dict]:
    """A summary of each level alone, with its number of problems."""
    levels = {}
    for level in sorted(set(result.levels.tolist())):
        ids = [name for name, at in zip(result.ids, result.levels, strict=True) if at == level]
        levels[str(level)] = {"n": len(ids)} | result.select(ids).summary()
        del levels[str(level)]["by_level"]
    return levels


def skills(
    model: tyro.conf.Positional[str],
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
    completion = (PROMPT_TOKENS + max_tokens) * CACHE_GROWTH * kv_bytes(config, each=2)
    return max(1, min(256, int(0.8 * free / completion)))


def _problems(data: str, count: int) -> list[Problem]:
    """Those of a family, a file or a set of the Hub; the first `count` of each level, or all."""
    source = f"data/test_{data}.jsonl" if data in FAMILIES else data
    return first_of_each_level(load_source(source), count)


def _share(value) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
