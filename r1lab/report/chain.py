"""One page about the whole chain: the stage table, what each stage cost, and distillation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.stages.benchmarks import BENCHMARKS, REASONING
from r1lab.evaluation.suites import paper_value
from r1lab.report.chart import GREY, MARKERS, OKABE_ITO, styled
from r1lab.report.folder import Row
from r1lab.report.html import duration, embedded, render

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
COUNTS = ("reflection", "tokens")  # rows that are no shares


def write_chain_report(folder: str | Path) -> Path:
    """Write `report.html` into the chain's folder, finished or not; return the page's path.

    Raises:
        InputError: there is no chain in the folder.
    """
    folder, stages = Path(folder), read_chain(folder)
    students = [stage for stage in STUDENTS if stage in stages]
    controlled = any(stage in stages for stage in CONTROLLED[1::2])
    html = render(
        "chain.html",
        name=folder.resolve().name,
        chain=table(stages, CHAIN),
        students=table(stages, students) if len(students) > 1 else None,
        controls=table(stages, CONTROLLED) if controlled else None,
        costs=costs(stages),
        duration=duration,
        families=len(measured(stages)),
        left_out=left_out(stages),
        paper_value=paper_value,
        figures=[
            {"caption": caption, **embedded(draw(stages))}
            for draw, caption in (
                (reasoning_by_stage, "Reasoning, with 95 % intervals over the problems."),
                (manners_by_stage, "What the stages after R1-Zero are for."),
            )
        ],
        machine=next((s["machine"] for s in stages.values() if "machine" in s), {}),
    )
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8", errors="replace")
    return path


def paper_aime() -> dict[str, float]:
    """Stage -> the paper's pass@1 on AIME 2024: of the base from v2 Fig. 1, of the rest Table 3."""
    models = {stage: f"DeepSeek-R1-{stage.title()}".removesuffix("-R1") for stage in CHAIN[1:]}
    found = {stage: paper_value(model, "AIME 2024") for stage, model in models.items()}
    return found | {"base": paper_value(models["zero"], "AIME 2024 at the start")}


def table(stages: Mapping[str, Row], columns: tuple[str, ...] | list[str]) -> dict:
    """The paper's Table 3 in small: one row for each benchmark, with the number of its problems, and
    one column for each stage."""
    columns = [stage for stage in columns if stage in stages]
    rows = []
    for name, benchmark in BENCHMARKS.items():
        cells = [stages[stage]["benchmarks"].get(name, {}) for stage in columns]
        best = max((c["value"] for c in cells if c.get("value") is not None), default=None)
        asked = max((c.get("n", 0) for c in cells), default=0)
        rows.append(
            (f"{benchmark.title} ({asked})", [(text(name, c), interval(name, c), c.get("value") == best and
                                name not in COUNTS) for c in cells])
        )  # fmt: skip
    return {"columns": [TITLES[stage] for stage in columns], "rows": rows}


def markdown(told: dict) -> str:
    """A table in Markdown, as the README shows it."""
    lines = [["benchmark (problems)", *told["columns"]], ["---"] + ["---:"] * len(told["columns"])]
    for title, cells in told["rows"]:
        shown = [f"**{value}** {spread}" if best else f"{value} {spread}" for value, spread, best in cells]
        lines.append([title, *(cell.strip() for cell in shown)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_tables(folder: str | Path) -> str:
    """Every table of benchmarks that the page of a chain may show."""
    stages = read_chain(folder)
    return "".join(f"{markdown(table(stages, part))}\n\n" for part in (CHAIN, STUDENTS, CONTROLLED))


def read_chain(folder: str | Path) -> dict[str, Row]:
    """Stage -> its summary. Raises InputError where the folder holds no chain."""
    path = Path(folder) / "summary.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no chain: its summary.json is missing; run `r1lab r1`.")
    return json.loads(path.read_text(encoding="utf-8"))


def costs(stages: Mapping[str, Row]) -> list[Row]:
    """What each stage took, and what it moved against the model it was made from, as the paper's.

    RL learns once from each token that it samples; of a fine-tuning, `data` tells who sampled."""
    names, aime, rows = measured(stages), paper_aime(), []
    for stage in (stage for stage in (*CHAIN[1:], *STUDENTS[1:]) if stage in stages):
        told, before = stages[stage], MADE_FROM[stage]
        spent = {key: told.get(key, 0.0) for key in ("wall_seconds", "cpu_hours", "peak_memory_gb")}
        spent |= {"sampled": told.get("data", told).get("tokens", 0), "learned": told.get("tokens", 0)}
        points = theirs = None
        if before in stages:
            points = mean_accuracy(told, names) - mean_accuracy(stages[before], names)
        if stage in aime:
            theirs = aime[stage] - aime[before]
        titles = {"stage": TITLES[stage], "from": TITLES[before]}
        rows.append(titles | spent | {"points": points and 100 * points, "paper": theirs})
    return rows


def left_out(stages: Mapping[str, Row]) -> dict[str, str]:
    """Title of each stage that went without programs, in training or measuring -> why."""
    found = {
        TITLES[stage]: told.get("data", {}).get("programs_left_out")
        or told["benchmarks"].get("programs", {}).get("left_out", "")
        for stage, told in stages.items()
    }
    return {title: why.partition(";")[0] for title, why in found.items() if why}


def measured(stages: Mapping[str, Row]) -> list[str]:
    """The reasoning benchmarks that every stage could be measured on."""
    columns = [told["benchmarks"] for told in stages.values()]
    return [
        name for name in REASONING
        if all(column.get(name, {}).get("value") is not None for column in columns)
    ]  # fmt: skip


def mean_accuracy(told: Row, names: Sequence[str] = REASONING) -> float:
    """pass@1 over reasoning benchmarks, each with the same weight."""
    return float(np.mean([told["benchmarks"][name]["value"] for name in names]))


def text(name: str, cell: Row) -> str:
    """A value as the table prints it: per cent, or a plain count."""
    if cell.get("value") is None:
        return "–"
    if name in COUNTS:
        return f"{cell['value']:.3g}"
    return f"{100 * cell['value']:.1f}\N{NO-BREAK SPACE}%"


def interval(name: str, cell: Row) -> str:
    if not cell.get("ci95"):
        return ""
    scale, digits = (1, 1) if name in COUNTS else (100, 0)
    low, high = (f"{scale * bound:.{digits}f}" for bound in cell["ci95"])
    return f"{low}–{high}"


@styled
def reasoning_by_stage(stages: Mapping[str, Row]) -> Figure:
    """pass@1 of each reasoning family, stage by stage."""
    columns = [stage for stage in CHAIN if stage in stages]
    names = measured(stages)
    first, last = (100 * mean_accuracy(stages[at], names) for at in (columns[0], columns[-1]))
    title = (
        f"Reasoning: {first:.0f} % with the {TITLES[columns[0]].lower()}, {last:.0f} % with "
        f"{TITLES[columns[-1]]} (mean of {len(names)})"
    )
    return _by_stage(stages, columns, REASONING, title, "held-out problems solved (%)")


@styled
def manners_by_stage(stages: Mapping[str, Row]) -> Figure:
    """Language, format, chat and safety, stage by stage."""
    columns = [stage for stage in CHAIN if stage in stages]
    names = ("language_en", "language_zh", "format", "helpfulness", "safety")
    return _by_stage(stages, columns, names, "Language, format, chat and safety", "score (%)")


def _by_stage(
    stages: Mapping[str, Row], columns: list[str], names: tuple[str, ...], title: str, ylabel: str
) -> Figure:
    figure = Figure(figsize=(7.2, 4.2))
    ax = figure.subplots()
    for i, name in enumerate(names):
        cells = [stages[stage]["benchmarks"].get(name, {}) for stage in columns]
        points = [(x, c["value"], *c["ci95"]) for x, c in enumerate(cells) if c.get("ci95")]
        if not points:
            continue
        at, values, low, high = (np.array(column) for column in zip(*points, strict=True))
        at = at + 0.05 * (i - len(names) / 2)
        errors = 100 * np.stack([values - low, high - values]).clip(min=0)
        ax.errorbar(
            at, 100 * values, errors, color=OKABE_ITO[i], marker=MARKERS[i], linestyle=":",
            linewidth=1, capsize=2, label=BENCHMARKS[name].title.removesuffix(", pass@1"),
        )  # fmt: skip
    ax.set_xticks(range(len(columns)), [TITLES[stage] for stage in columns])
    ax.axvline(0.5, color=GREY, linewidth=0.8, linestyle="--")
    ax.set(ylim=(0, 103), ylabel=ylabel)
    ax.set_title(title, fontsize=11)
    ax.legend(fontsize=8, loc="lower right")
    return figure
