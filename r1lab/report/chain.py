"""One page about the whole chain: the stage table, what each stage cost, and distillation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.evaluation.suites import paper_value
from r1lab.evaluation.table import Cell, Measure, Table
from r1lab.report.chart import GREY, MARKERS, OKABE_ITO, styled
from r1lab.report.html import duration, embedded, write_page
from r1lab.run import Row
from r1lab.stages.benchmarks import BENCHMARKS, COUNTS, REASONING

TITLES = {
    "base": "Base", "zero": "R1-Zero", "dev1": "Dev1", "dev2": "Dev2", "dev3": "Dev3", "r1": "R1",
    "student": "Student", "student_sft": "Student, distilled", "student_rl": "Student, RL",
    "dev2_no_language": "Dev2, no language reward", "dev3_random": "Dev3, random samples",
}  # fmt: skip
CHAIN = ("base", "zero", "dev1", "dev2", "dev3", "r1")
STUDENTS = ("student", "student_sft", "student_rl")
CONTROLLED = ("dev2", "dev2_no_language", "dev3", "dev3_random")
MADE_FROM = {"dev1": "base", "dev2": "dev1", "dev3": "base", "r1": "dev3", "zero": "base",
             "student_sft": "student", "student_rl": "student"}  # fmt: skip
MANNERS = ("language_en", "language_zh", "format", "helpfulness", "safety")
Stages = Mapping[str, Row]  # name -> summary


def write_chain_report(folder: str | Path) -> Path:
    """Write `report.html` into the chain's folder, finished or not; return the page's path.

    Raises:
        InputError: there is no chain in the folder.
    """
    folder, stages = Path(folder), read_chain(folder)
    names = measured(stages)
    shown = [stage for stage in CHAIN if stage in stages]
    first, last = shown[0], shown[-1]
    title = (
        f"Reasoning: {100 * mean_accuracy(stages[first], names):.0f} % with the "
        f"{TITLES[first].lower()}, {100 * mean_accuracy(stages[last], names):.0f} % with "
        f"{TITLES[last]} (mean of {len(names)})"
    )
    reasoning = by_stage(stages, names, title, "held-out problems solved (%)")
    manners = by_stage(stages, MANNERS, "Language, format, chat and safety", "score (%)")
    return write_page(
        folder / "report.html",
        "chain.html",
        name=folder.resolve().name,
        tables=stage_tables(stages),
        costs=costs(stages),
        duration=duration,
        families=len(names),
        left_out=left_out(stages),
        paper_value=paper_value,
        figures={
            "reasoning": embedded(reasoning, "Reasoning, with 95 % intervals over the problems."),
            "manners": embedded(manners, "What the stages after R1-Zero are for."),
        },
        machine=next((s["machine"] for s in stages.values() if "machine" in s), {}),
    )


def read_chain(folder: str | Path) -> dict[str, Row]:
    """Stage -> its summary. Raises InputError where the folder holds no chain."""
    path = Path(folder) / "summary.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no chain: its summary.json is missing; run `r1lab r1`.")
    return json.loads(path.read_text(encoding="utf-8"))


def stage_tables(stages: Stages) -> dict[str, Table]:
    """The tables that can be made of what is there: the chain, its students, its control arms."""
    parts = {"chain": CHAIN, "students": STUDENTS, "controls": CONTROLLED}
    needed = {"chain": CHAIN, "students": STUDENTS[1:], "controls": CONTROLLED[1::2]}
    return {
        name: stage_table(stages, columns)
        for name, columns in parts.items()
        if any(stage in stages for stage in needed[name])
    }


def stage_table(stages: Stages, columns: Sequence[str]) -> Table:
    """The paper's Table 3 in small: one row for each benchmark, with the number of its problems, and
    one column for each stage."""
    columns = [stage for stage in columns if stage in stages]
    rows = []
    for name, title in row_titles(stages).items():
        cells = [stages[stage]["benchmarks"].get(name, {}) for stage in columns]
        best = max((c["value"] for c in cells if c.get("value") is not None), default=None)
        asked = max((c.get("n", 0) for c in cells), default=0)
        shown = [_cell(name, c, c.get("value") == best) for c in cells]
        rows.append([f"{title} ({asked})", *shown])
    return Table(["Benchmark (problems)", *(TITLES[stage] for stage in columns)], rows)


def row_titles(stages: Stages) -> dict[str, str]:
    """Name -> title of every row; that of a user's task is in its cells."""
    titles = {name: benchmark.title for name, benchmark in BENCHMARKS.items()}
    own = {}
    for summary in stages.values():
        own |= {name: cell["title"] for name, cell in summary["benchmarks"].items() if "title" in cell}
    return own or titles


def _cell(name: str, cell: Row, best: bool) -> Cell:
    """A value as the table prints it: in percent, or a plain count, which has no best."""
    count = name in COUNTS
    value = Measure(name, "" if count else "%").text(cell.get("value"))
    scale, digits = (1, 1) if count else (100, 0)
    bounds = [f"{scale * bound:.{digits}f}" for bound in cell.get("ci95") or []]
    return Cell(value, "–".join(bounds), best and not count)


def costs(stages: Stages) -> list[Row]:
    """What each stage took, and what it moved against the model it was made from, as the paper's.

    RL learns once from each token that it samples; of a fine-tuning, `data` says who sampled."""
    names, aime, rows = measured(stages), paper_aime(), []
    for stage in (stage for stage in (*CHAIN[1:], *STUDENTS[1:]) if stage in stages):
        summary, before = stages[stage], MADE_FROM[stage]
        row = {"stage": TITLES[stage], "from": TITLES[before], "points": None, "paper": None}
        for key in ("wall_seconds", "cpu_hours", "peak_memory_gb"):
            row[key] = summary.get(key, 0.0)
        row["sampled"] = summary.get("data", summary).get("tokens", 0)
        row["learned"] = summary.get("tokens", 0)
        if before in stages:
            gained = mean_accuracy(summary, names) - mean_accuracy(stages[before], names)
            row["points"] = 100 * gained
        if stage in aime:
            row["paper"] = aime[stage] - aime[before]
        rows.append(row)
    return rows


def paper_aime() -> dict[str, float]:
    """Stage -> the paper's pass@1 on AIME 2024: of the base from v2 Fig. 1, of the rest Table 3."""
    models = {stage: f"DeepSeek-R1-{stage.title()}".removesuffix("-R1") for stage in CHAIN[1:]}
    found = {stage: paper_value(model, "AIME 2024") for stage, model in models.items()}
    return found | {"base": paper_value(models["zero"], "AIME 2024 at the start")}


def left_out(stages: Stages) -> dict[str, str]:
    """Title of each stage that went without programs, in training or measuring -> why."""
    found = {}
    for stage, summary in stages.items():
        why = summary.get("data", {}).get("programs_left_out")
        why = why or summary["benchmarks"].get("programs", {}).get("left_out", "")
        if why:
            found[TITLES[stage]] = why.partition(";")[0]
    return found


def measured(stages: Stages) -> list[str]:
    """The reasoning benchmarks, or a user's own, that every stage could be measured on."""
    columns = [summary["benchmarks"] for summary in stages.values()]
    titles = row_titles(stages)
    names = [name for name in REASONING if name in titles] or list(titles)
    return [
        name for name in names
        if all(column.get(name, {}).get("value") is not None for column in columns)
    ]  # fmt: skip


def mean_accuracy(summary: Row, names: Sequence[str] = REASONING) -> float:
    """pass@1 over reasoning benchmarks, each with the same weight."""
    return float(np.mean([summary["benchmarks"][name]["value"] for name in names]))


@styled
def by_stage(stages: Stages, names: Sequence[str], title: str, axis: str) -> Figure:
    """Benchmarks with their intervals, stage by stage."""
    columns, titles = [stage for stage in CHAIN if stage in stages], row_titles(stages)
    figure = Figure(figsize=(7.2, 4.2))
    ax = figure.subplots()
    for i, name in enumerate(names):
        cells = [stages[stage]["benchmarks"].get(name, {}) for stage in columns]
        points = [(x, c["value"], *c["ci95"]) for x, c in enumerate(cells) if c.get("ci95")]
        if not points:
            continue
        at, values, low, high = np.array(points).T
        errors = 100 * np.stack([values - low, high - values]).clip(min=0)
        ax.errorbar(
            at + 0.05 * (i - len(names) / 2), 100 * values, errors, color=OKABE_ITO[i],
            marker=MARKERS[i], linestyle=":", linewidth=1, capsize=2,
            label=titles[name].removesuffix(", pass@1"),
        )  # fmt: skip
    ax.set_xticks(range(len(columns)), [TITLES[stage] for stage in columns])
    ax.axvline(0.5, color=GREY, linewidth=0.8, linestyle="--")
    ax.set(ylim=(0, 103), ylabel=axis)
    ax.set_title(title, fontsize=11)
    if ax.containers:
        ax.legend(fontsize=8, loc="lower right")
    return figure
