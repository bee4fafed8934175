"""Self-contained HTML pages: of a run (numbers, figures, samples, settings), and of a whole chain (the
stage table, what each stage cost, and distillation)."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from r1lab.evaluation.suites import paper_value
from r1lab.evaluation.table import Cell, Measure, Table, level_table, summary_table
from r1lab.files import read_toml
from r1lab.report.answers import PAGES, browser, player
from r1lab.report.figures import (
    CAPTIONS, alt_text, draw, draw_band, draw_line, finish, panels, png_bytes, styled,
)  # fmt: skip
from r1lab.run import Row, Run
from r1lab.stages.benchmarks import BENCHMARKS, COUNTS, REASONING

Stages = Mapping[str, Row]  # name -> summary
MANNERS, TITLES, MADE_FROM, TABLES, PLACES = read_toml(__file__, "chain").values()
CHAIN = TABLES["chain"]
AIME = {stage: paper_value(*place) for stage, place in PLACES.items()}  # the paper's pass@1


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` and `figures/*.png` into a run folder; return the path of the page.

    Works on an unfinished run, and says on the page that it is one.

    Raises:
        InputError: the folder holds no run, or one of its files is damaged.
    """
    run = Run(run_dir)
    rows, config = run.measured, run.config
    facts = config | (run.summary if run.finished else {})
    folder = run.folder / "figures"
    folder.mkdir(exist_ok=True)
    figures = {
        name: embedded(figure, caption, folder / f"{name}.png")
        for name, caption in CAPTIONS.items()
        if (figure := draw(name, rows, config))
    }
    last = "Final" if run.finished else "Latest"
    summaries = {"Base": run.evaluation("base"), last: run.evaluation("final")}
    return write_page(
        run, "page.html", step=rows[-1]["step"], config=config, facts=facts, figures=figures,
        captions=CAPTIONS, player=player(run), browser=browser(run), summaries=summaries.values(),
        headline=summary_table(summaries, changes=True), levels=level_table(summaries, changes=True),
    )  # fmt: skip


def write_page(run: Run, template: str, **values: object) -> Path:
    """Fill in a page of this room, every value escaped, and write it as the run's `report.html`."""
    helpers = {"duration": duration, "paper_value": paper_value}
    html = PAGES.get_template(template, globals=helpers).render(run=run, **values)
    # HTML forbids control characters, and a model may well write some, or half a character.
    html = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\N{REPLACEMENT CHARACTER}", html)
    path = run.folder / "report.html"
    path.write_text(html, encoding="utf-8", errors="replace")
    return path


def embedded(figure: Figure, caption: str, file: Path | None = None) -> dict[str, str]:
    """Make what a page needs to show a figure: its picture as a URL, and its text."""
    png = png_bytes(figure)
    if file:
        file.write_bytes(png)
    source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return {"source": source, "alt": alt_text(figure), "caption": caption}


def duration(seconds: float | None) -> str:
    """Write seconds as a person reads them.

    >>> duration(312.2), duration(3720.0)
    ('5 min 12 s', '1 h 02 min')
    """
    if seconds is None:
        return "not recorded"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


# The chain


def write_chain_report(folder: str | Path) -> Path:
    """Write `report.html` into the chain's folder, finished or not; return the page's path.

    Raises InputError where the folder holds no `summary.json`.
    """
    run = Run(folder)
    stages = run.summary
    names = measured(stages)
    shown = [stage for stage in CHAIN if stage in stages]
    first, last = (100 * mean_accuracy(stages[stage], names) for stage in (shown[0], shown[-1]))
    title = (
        f"Reasoning: {first:.0f} % with the {TITLES[shown[0]].lower()}, {last:.0f} % with "
        f"{TITLES[shown[-1]]} (mean of {len(names)})"
    )
    reasoning = by_stage(stages, names, title, "held-out problems solved (%)")
    manners = by_stage(stages, MANNERS, "Language, format, chat and safety", "score (%)")
    return write_page(
        run, "chain.html", tables=stage_tables(stages), costs=costs(stages),
        families=len(names), left_out=left_out(stages),
        figures={
            "reasoning": embedded(reasoning, "Reasoning, with 95 % intervals over the problems."),
            "manners": embedded(manners, "What the stages after R1-Zero are for."),
        },
        machine=next((s["machine"] for s in stages.values() if "machine" in s), {}),
    )  # fmt: skip


def stage_tables(stages: Stages) -> dict[str, Table]:
    """Make the tables for which there are stages: the chain, its students, its control arms."""
    everywhere = {*CHAIN, "student"}
    return {
        name: stage_table(stages, columns)
        for name, columns in TABLES.items()
        if name == "chain" or stages.keys() & {*columns} - everywhere
    }


def cells_of(stages: Stages, columns: Iterable[str], name: str) -> list[Row]:
    """Return what a benchmark gave at each of these stages; {} where it was not measured."""
    return [stages[stage]["benchmarks"].get(name, {}) for stage in columns]


def stage_table(stages: Stages, columns: Sequence[str]) -> Table:
    """Make the paper's Table 3 in small: one row for each benchmark, with the number of its problems,
    and one column for each stage."""
    columns = [stage for stage in columns if stage in stages]
    rows = []
    for name, title in row_titles(stages).items():
        cells = cells_of(stages, columns, name)
        best = max((c["value"] for c in cells if c.get("value") is not None), default=None)
        asked = max(c.get("n", 0) for c in cells)
        rows.append([f"{title} ({asked})", *(_cell(name, c, c.get("value") == best) for c in cells)])
    return Table(["Benchmark (problems)", *(TITLES[stage] for stage in columns)], rows)


def row_titles(stages: Stages) -> dict[str, str]:
    """Find the title of every row by its name; that of a user's task is in its cells."""
    cells: dict[str, Row] = {}
    for summary in stages.values():
        cells |= summary["benchmarks"]
    return {name: cell.get("title") or BENCHMARKS[name].title for name, cell in cells.items()}


def _cell(name, cell, best):
    """Print a value in percent, or as a plain count, which has no best."""
    unit, scale, digits = ("", 1, 1) if name in COUNTS else ("%", 100, 0)
    bounds = [f"{scale * bound:.{digits}f}" for bound in cell.get("ci95") or []]
    return Cell(Measure(name, unit).text(cell.get("value")), "–".join(bounds), best and unit == "%")


def costs(stages: Stages) -> list[Row]:
    """List what each stage cost, and how far it moved from the model it was made from, here and in the
    paper.

    RL learns once from each token that it samples; of a fine-tuning, `data` says who sampled."""
    names, rows = measured(stages), []
    for stage, before in MADE_FROM.items():
        if stage not in stages:
            continue
        summary, gained = stages[stage], None
        if before in stages:
            gained = 100 * (mean_accuracy(summary, names) - mean_accuracy(stages[before], names))
        rows.append({
            "stage": TITLES[stage], "from": TITLES[before], "points": gained,
            "paper": AIME[stage] - AIME[before] if stage in AIME else None,
            "sampled": summary.get("data", summary).get("tokens", 0),
            "learned": summary.get("tokens", 0),
            **{key: summary.get(key, 0.0) for key in ("wall_seconds", "cpu_hours", "peak_memory_gb")},
        })  # fmt: skip
    return rows


def left_out(stages: Stages) -> dict[str, str]:
    """Say why a stage had no programs, in training or measuring, by the stage's title."""
    reasons = {}
    for stage, summary in stages.items():
        why = summary.get("data", {}).get("programs_left_out")
        if why := why or summary["benchmarks"].get("programs", {}).get("left_out"):
            reasons[TITLES[stage]] = why.partition(";")[0]
    return reasons


def measured(stages: Stages) -> list[str]:
    """List the reasoning benchmarks, or a user's own, that every stage could be measured on."""
    titles = row_titles(stages)
    names = [name for name in REASONING if name in titles] or titles
    return [
        name for name in names
        if all(cell.get("value") is not None for cell in cells_of(stages, stages, name))
    ]  # fmt: skip


def mean_accuracy(summary: Row, names: Sequence[str]) -> float:
    """Average pass@1 over reasoning benchmarks, each with the same weight."""
    return fmean(summary["benchmarks"][name]["value"] for name in names)


@styled
def by_stage(stages: Stages, names: Sequence[str], title: str, axis: str) -> Figure:
    """Draw benchmarks stage by stage, with bands for their intervals."""
    columns, titles = [stage for stage in CHAIN if stage in stages], row_titles(stages)
    figure, (ax,) = panels()
    for i, name in enumerate(names):
        rows = [
            {"kind": "eval", "step": x, "pass_at_1": cell.get("value"), "pass_at_1_ci95": cell.get("ci95")}
            for x, cell in enumerate(cells_of(stages, columns, name))
        ]
        draw_line(ax, rows, "eval/pass_at_1", titles.get(name, "").removesuffix(", pass@1"), i)
        draw_band(ax, rows, "eval/pass_at_1", i)
    finish(ax, title, axis, 100.0)
    ax.set_xticks(range(len(columns)), [TITLES[stage] for stage in columns])
    ax.set_xlabel("")
    return figure
