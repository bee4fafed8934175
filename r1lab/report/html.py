"""Self-contained HTML pages, and the one about a run: numbers, figures, samples and settings."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from r1lab.evaluation.table import level_table, summary_table
from r1lab.report.chart import alt_text, png_bytes
from r1lab.report.figures import FIGURES, draw
from r1lab.run import Row, Run


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` and `figures/*.png` into a run folder; return the path of the page.

    Works on an unfinished run, and says on the page that it is one.

    Raises:
        InputError: the folder holds no run, or one of its files is damaged.
    """
    run = Run(run_dir)
    rows, samples, config = run.measured, run.samples, run.config
    facts = config | (run.summary if run.finished else {})
    figures = draw_figures(rows, config, run.folder / "figures")
    summaries = {
        "Base": run.evaluation("base"),
        "Final" if run.finished else "Latest": run.evaluation("final"),
    }
    return write_page(
        run.folder / "report.html",
        "page.html",
        name=run.name,
        finished=run.finished,
        step=rows[-1]["step"],
        headline=summary_table(summaries, changes=True),
        levels=level_table(summaries, changes=True),
        figures=figures,
        missing=[name.replace("_", " ") for name in FIGURES if name not in figures],
        samples=pick_samples(samples),
        facts=facts,
        machine=flat(facts.get("machine", {})),
        config=flat(config),
        duration=duration,
    )


def write_page(path: Path, template: str, **values: object) -> Path:
    """Fill in a page of this folder, every value escaped, and write it."""
    pages = Environment(
        autoescape=True, undefined=StrictUndefined, loader=PackageLoader("r1lab.report", "")
    )
    html = pages.get_template(template).render(**values)
    # HTML forbids control characters, and a model may well write some, or half a character.
    html = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\N{REPLACEMENT CHARACTER}", html)
    path.write_text(html, encoding="utf-8", errors="replace")
    return path


def embedded(figure: Figure, caption: str, file: Path | None = None) -> dict[str, str]:
    """What a page needs to show a figure: its picture as a URL, and its text."""
    png = png_bytes(figure)
    if file:
        file.write_bytes(png)
    source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return {"source": source, "alt": alt_text(figure), "caption": caption}


def draw_figures(rows: list[Row], config: Row, folder: Path) -> dict[str, dict[str, str]]:
    """Each figure that the metrics allow, also as a file."""
    folder.mkdir(exist_ok=True)
    drawn = {}
    for name, (caption, _) in FIGURES.items():
        if figure := draw(name, rows, config):
            drawn[name] = embedded(figure, caption, folder / f"{name}.png")
    return drawn


def pick_samples(samples: Iterable[Row], questions: int = 3) -> list[list[Row]]:
    """For a few questions, the first stored answer at the first, a middle and the last step.

    The rule looks at levels and steps only, never at who was right: of the questions stored over
    the widest range of steps, the one of the lowest, the middle and the top level.
    """
    by_question: dict[object, dict[int, Row]] = {}
    for row in samples:
        by_question.setdefault(row["id"], {}).setdefault(row["step"], row)
    widest = max((max(rows) - min(rows) for rows in by_question.values()), default=0)
    best = [rows for rows in by_question.values() if max(rows) - min(rows) == widest]
    best.sort(key=lambda rows: next(iter(rows.values()))["level"])
    if len(best) > questions:
        best = [best[i * (len(best) - 1) // (questions - 1)] for i in range(questions)]
    picked = []
    for rows in best:
        first, last = min(rows), max(rows)
        middle = min(sorted(rows), key=lambda step: abs(step - (first + last) / 2))
        picked.append([rows[step] for step in sorted({first, middle, last})])
    return picked


def duration(seconds: float | None) -> str:
    """Seconds in words a person reads.

    >>> duration(312.2), duration(3720.0)
    ('5 min 12 s', '1 h 02 min')
    """
    if seconds is None:
        return "not recorded"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def flat(settings: Mapping, prefix: str = "") -> dict[str, str]:
    """Nested settings as one level, `outer.inner`, each value as a person writes it."""
    level: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            level |= flat(value, f"{prefix}{key}.")
        else:
            plain = value if isinstance(value, str) else json.dumps(value)
            level[prefix + key] = "none" if value is None else plain
    return level
