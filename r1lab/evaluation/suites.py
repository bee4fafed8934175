"""The paper's benchmarks on a real model, by the paper's protocol, beside the paper's numbers.

v2 D.1: temperature 0.6, top-p 0.95, at most 32,768 tokens, pass@1 as the mean of k samples (k = 64
for AIME and GPQA, 16 for MATH, 8 for LiveCodeBench), a majority of 64 votes on AIME. Means are over
problems. What is not here is left to lm-eval, with the command; what that does not have either, to
nobody (`NOWHERE`).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from shlex import quote

import numpy as np
from rich.console import Console

from r1lab.errors import InputError, require_known
from r1lab.evaluation.estimators import bootstrap_ci
from r1lab.evaluation.measure import Evaluation, evaluate, merge
from r1lab.evaluation.table import Cell, Table
from r1lab.files import SHIPPED, Row, read_toml
from r1lab.models.places import SMOLLM2
from r1lab.run import Run
from r1lab.sampling import Sampler
from r1lab.sources.hub import load_source
from r1lab.sources.templates import apply_template

OpenModel = Callable[[str], tuple[Sampler, object, int]]  # sampler, tokenizer, longest sequence
PAPER = SHIPPED / "paper_results.json"
FREE = ("suite", "benchmarks", "seed", "batch")  # what the paper's protocol leaves to choose
BESIDE = ("DeepSeek-R1", "DeepSeek-R1-Zero", "o1-1217", "GPT-4o-0513")
LM_EVAL = "mmlu_generative,mmlu_redux_generative,mmlu_pro,drop,ifeval,ceval-valid"
NOWHERE = (
    "Neither here nor in lm-eval: Codeforces (a rating comes from contests against people), "
    "SWE-bench, Aider, and what another model judges (AlpacaEval, ArenaHard, SimpleQA)."
)


TABLE = read_toml(__file__, "suites")
SUITES: dict[str, dict[str, Row]] = TABLE["suites"]  # the benchmarks of each by name


@dataclass(frozen=True)
class SuiteConfig:
    """What is evaluated, and how. The defaults are the paper's protocol.

    Attributes:
        suite: r1 for the paper's benchmarks, with its numbers beside.
        benchmarks: of the suite; () for all.
        samples: of each problem, in place of each benchmark's k; 0 leaves it.
        problems: the first so many of each benchmark; 0 for all. Anything else is a trial.
        template: "r1" for models that think by themselves; "r1_zero", "chat": see sources.templates.
        batch: problems that are asked together, and lost if the evaluation is killed meanwhile.
    """

    model: str
    suite: str = "r1"
    benchmarks: tuple[str, ...] = ()
    samples: int = 0
    problems: int = 0
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 32_768
    template: str = "r1"
    seed: int = 0
    batch: int = 8


def run_suite(config: SuiteConfig, open_model: OpenModel, folder: Path) -> dict[str, dict]:
    """Evaluate a model, one benchmark after another, and print pass@1 as it is ready; return all results.

    Everything is stored in `folder`: answers batch by batch, `summary.json` after each benchmark. The
    same call goes on where an earlier one was stopped, and the model is opened only if something is
    missing.

    Raises InputError: unknown names, a folder with other settings, data that cannot be had.
    """
    require_known(config.suite, SUITES, "suite")
    suite = SUITES[config.suite]
    chosen = config.benchmarks or tuple(suite)
    for name in chosen:
        require_known(name, suite, "benchmark")
    sets = {name: load_source(name)[: config.problems or None] for name in chosen}
    run = Run(folder)
    open_once = cache(open_model)
    run.prepare(asdict(config), resume=True)
    summary: dict[str, dict] = {}
    for name, problems in sets.items():
        evaluation = _evaluated(config, suite[name], problems, folder / name, open_once)
        summary[name] = results(suite[name], evaluation)
        run.write("summary.json", summary)
        print(f"{suite[name]['title']}: pass@1 {summary[name]['pass_at_1']:.1f}", flush=True)
    return summary


def show_suite(config: SuiteConfig, open_model: OpenModel, folder: Path):
    """Run or go on with an evaluation, and print its table.

    Which sampler answers may change when it goes on: the protocol is the same."""
    Console().print(suite_table(run_suite(config, open_model, folder)))
    usual = asdict(SuiteConfig(config.model)) | {name: getattr(config, name) for name in FREE}
    changed = [f"{key} {value}" for key, value in asdict(config).items() if value != usual[key]]
    if changed:
        print(f"A trial ({', '.join(changed)}), so not to be compared with the paper.")
    print(f"Stored in {folder}. MMLU, DROP, IF-Eval and more, by lm-eval (pip install lm_eval[hf]):")
    print(long_tail(config, folder), NOWHERE, sep="\n")


def results(benchmark: Row, evaluation: Evaluation) -> dict:
    """Give pass@1 (and the vote) in percent with 95 % intervals over problems, and the paper's numbers."""
    problems, k = evaluation["correct"].shape
    shown: dict = {"title": benchmark["title"], "n": problems, "k": k}
    accuracies = evaluation.accuracies()
    for name in ("pass_at_1", f"cons_at_{k}")[: 1 + ("votes" in benchmark)]:
        estimate = bootstrap_ci(100 * accuracies[name], np.zeros(problems, dtype=int), span=(0.0, 100.0))
        shown[name], *shown[f"{name}_ci95"] = (round(value, 2) for value in estimate)
    shown["mean_tokens"] = round(float(evaluation["tokens"].mean()), 1)
    shown["truncated"] = round(float(evaluation["truncated"].mean()), 4)
    shown["paper"] = {model: paper_value(model, benchmark["title"]) for model in BESIDE}
    return shown


def suite_table(summary: Mapping[str, dict]) -> Table:
    """Show percent with 95 % intervals over problems; the last columns are the paper's numbers (v2)."""
    rows = []
    for result in summary.values():
        shown = []
        for name in ("pass_at_1", f"cons_at_{result['k']}"):
            bounds = [f"{bound:.1f}" for bound in result.get(f"{name}_ci95", ())]
            shown.append(Cell(f"{result[name]:.1f}", " to ".join(bounds)) if bounds else "")
        shown += [f"{result['mean_tokens']:.0f}", f"{result['truncated']:.1%}"]
        paper = ["–" if value is None else f"{value:g}" for value in result["paper"].values()]
        rows.append([result["title"], str(result["n"]), str(result["k"]), *shown, *paper])
    return Table(("benchmark", "n", "k", "pass@1", "vote", "tokens", "cut off", *BESIDE), rows)


def long_tail(config: SuiteConfig, folder: Path) -> str:
    """Write the command that measures what is not here, by the field's tool (`pip install lm_eval[hf]`).

    Its prompts are not the paper's (simple-evals): compare models with it, not with the paper.
    "smollm2" and .gguf files are names for r1lab alone: a first command saves such a model."""
    model = config.model
    save = ""
    if model == SMOLLM2 or model.endswith(".gguf"):
        model = str(folder / "model")
        saving = f"[part.save_pretrained({model!r}) for part in load_model({config.model!r})]"
        save = f'python -c "from r1lab.models.policy import load_model; {saving}" && '
    return (
        f"{save}lm_eval --model hf --model_args {quote(f'pretrained={model},dtype=bfloat16')} "
        f"--tasks {LM_EVAL} --apply_chat_template --gen_kwargs do_sample=True,"
        f"temperature={config.temperature},top_p={config.top_p},max_gen_toks={config.max_tokens} "
        f"--batch_size auto --output_path {quote(str(folder / 'lm_eval'))}"
    )


def paper_rows(path: Path | None = None) -> list[dict]:
    """Read the paper's tables, one number a row: model, benchmark, value, table, versions."""
    rows = []
    for table in json.loads((path or PAPER).read_text(encoding="utf-8"))["tables"]:
        columns_are = "model" if table["rows_are"] == "benchmark" else "benchmark"
        for row, values in table["rows"].items():
            for column, value in zip(table["columns"], values):
                rows.append({
                    table["rows_are"]: row, columns_are: column, "value": value,
                    "table": table["table"], "versions": table["versions"],
                })  # fmt: skip
    return rows


def paper_value(model: str, benchmark: str) -> float | None:
    """Find what the paper prints (v2), in its unit; None where it prints nothing."""
    rows = (row for row in paper_rows() if row["model"] == model and row["benchmark"] == benchmark)
    return next((row["value"] for row in rows if "v2" in row["versions"]), None)


def _evaluated(config, benchmark, problems, folder, open_once):
    """Join all answers to a benchmark: the batches in `folder`, and those still to be asked."""
    batches = -(-len(problems) // config.batch)
    parts = []
    for number in range(batches):
        path = folder / f"part-{number:04d}.npz"
        if not path.exists():
            sampler, tokenizer, context = open_once(config.model)
            ask = partial(_prompt, config, benchmark, tokenizer)
            longest = max(len(tokenizer(ask(problem)).input_ids) for problem in problems)
            if longest >= context:  # no sequence is longer than the model can read
                raise InputError(
                    f"{benchmark['title']} asks questions of up to {longest} tokens and {config.model} reads "
                    f"{context}; evaluate a model with a longer context, or leave this benchmark out."
                )
            part = evaluate(
                sampler, tokenizer, problems, k=config.samples or benchmark["k"],
                temperature=config.temperature, top_p=config.top_p,
                max_tokens=min(config.max_tokens, context - longest), seed=config.seed,
                template=ask, shard=(number, batches),
            )  # fmt: skip
            folder.mkdir(exist_ok=True)
            part.save(path)
        parts.append(Evaluation.load(path))
        if parts[-1].ids != [problem.id for problem in problems[number::batches]]:
            raise InputError(
                f"{path} answers other problems than {folder.name} has now; give --name for "
                "another evaluation, or remove the folder."
            )
    return merge(parts)


def _prompt(config, benchmark, tokenizer, problem):
    """Write the question, and with the paper's template what the benchmark adds to it."""
    said = TABLE["ask"][benchmark["ask"]] if config.template == "r1" else ""
    return apply_template(config.template, problem.prompt + said, tokenizer)
