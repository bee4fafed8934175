"""Numbers as people read them: quantities with names and units, and one table for all places."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import rich.table
from jinja2 import Environment, PackageLoader, select_autoescape
from rich.text import Text

from r1lab.files import read_toml

MISSING = "–"
PAGES = Environment(autoescape=select_autoescape(), loader=PackageLoader("r1lab.evaluation", ""))


@dataclass(frozen=True)
class Measure:
    """Name and print a quantity. Without a unit it is a fraction, shown in percent with so many `digits`."""

    name: str
    unit: str = "%"
    digits: int = 1

    def value(self, raw: float) -> float:
        return 100 * raw if self.unit == "%" else raw

    def number(self, raw: float | None) -> str:
        if raw is None or not math.isfinite(raw):
            return MISSING
        if self.unit == "%":
            return f"{100 * raw:.{self.digits}f}"
        return f"{raw:,.0f}" if abs(raw) >= 100 else f"{raw:.3g}"

    def text(self, raw: float | None) -> str:
        number = self.number(raw)
        return number + "\N{NO-BREAK SPACE}%" * (self.unit == "%" and number != MISSING)

    def change(self, first: float | None, last: float | None) -> str:
        """Print a change in points of percent, or as a factor."""
        if first is None or last is None:
            return MISSING
        if self.unit == "%":
            return f"{100 * (last - first):+.0f} points".replace("-", "\N{MINUS SIGN}")
        return f"× {last / first:.1f}" if first else f"{last:+.2f}"

    @property
    def title(self) -> str:
        return self.name[0].upper() + self.name[1:]

    @property
    def axis(self) -> str:
        """Add the unit to the name, unless the name holds it already."""
        return self.name if self.unit in self.name else f"{self.name} ({self.unit})"


MEASURES = {key: Measure(*about) for key, about in read_toml(__file__, "measures").items()}
WORDS = re.compile(r"\W*[^\W\d_]")  # what a cell that is no number begins with
OF_SEVERAL = re.compile(r"(pass|cons)_at_(?!1$)(\d+)")  # pass@k and the majority vote of k answers


def measure_of(key: str) -> Measure:
    """Find the measure of a key of the metrics; a key without a name is a part of the reward."""
    if several := OF_SEVERAL.fullmatch(key):
        name = f"{several[1]}@{several[2]}"
        return Measure(name if several[1] == "pass" else f"{name} (majority vote)")
    return MEASURES.get(key, Measure(key, "%" if key.startswith("level ") else "per answer"))


@dataclass(frozen=True)
class Cell:
    """A value, its interval in smaller type, and whether it is the best of its row."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under `columns`, the first of which names the row. Shows itself in a terminal (rich), in
    a notebook or page (HTML), and as Markdown where it is printed."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""

    def cells(self) -> list[list[Cell]]:
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]

    @property
    def sides(self) -> list[str]:
        """Align numbers to the right, and columns of words and the first one to the left."""
        sides = ["left", *["right"] * (len(self.columns) - 1)]
        for row in self.cells():
            sides = ["left" if WORDS.match(cell.text) else side for side, cell in zip(sides, row)]
        return sides

    def __rich__(self) -> rich.table.Table:
        shown = rich.table.Table()
        for name, side in zip(self.columns, self.sides):
            shown.add_column(Text(name), justify=side)
        for row in self.cells():
            texts = [((cell.text, "bold" * cell.best), (f" {cell.interval}".rstrip(), "dim")) for cell in row]
            shown.add_row(*(Text.assemble(*parts) for parts in texts))
        return shown

    def _repr_html_(self):
        return PAGES.get_template("table.html").render(table=self)

    __html__ = _repr_html_  # how a page's template asks for it

    def _repr_pretty_(self, printer, _):
        printer.text(str(self))

    def __str__(self) -> str:
        return PAGES.get_template("table.md").render(table=self).rstrip()


def summary_table(summaries: Mapping[str, Mapping], changes: bool = False) -> Table:
    """Show evaluations side by side, each under its name; of two, also the changes.

    A summary is that of `Evaluation.summary`, or a row of a run's metrics; it may be empty.
    """
    known = set().union(*summaries.values())
    several = sorted(filter(OF_SEVERAL.fullmatch, known))
    rows = []
    for key in ["pass_at_1", "pass_at_1_strict", *several, *list(MEASURES)[2:9]]:
        if key in known:
            rows.append([measure_of(key).title, *_compared(key, summaries.values(), changes)])
    return Table(["Held-out problems", *summaries, *["Change"] * changes], rows)


def level_table(summaries: Mapping[str, Mapping], changes: bool = False) -> Table:
    """Show pass@1 level by level, as `summary_table` does."""
    by_level = [summary.get("by_level", {}) for summary in summaries.values()]
    rows = []
    for level in sorted(set().union(*by_level), key=int):
        cells = [levels.get(level, {}) for levels in by_level]
        counts = dict.fromkeys(str(cell["n"]) for cell in cells if cell)
        blocks = [cell | {"pass_at_1_ci95": cell.get("ci95")} for cell in cells]
        first = Cell(f"Level {level}", f"{', then '.join(counts)} problems")
        rows.append([first, *_compared("pass_at_1", blocks, changes)])
    return Table(["Pass@1", *summaries, *["Change"] * changes], rows)


def _compared(key, blocks, changes):
    """Print a value of each summary with its interval, if there is one, and the change; beside a change,
    a tenth of a percent says nothing."""
    measure, cells = replace(measure_of(key), digits=0 if changes else 1), []
    for block in blocks:
        bounds = block.get(f"{key}_ci95") or []
        cells.append(Cell(measure.text(block.get(key)), " to ".join(map(measure.number, bounds))))
    return [*cells, measure.change(*(block.get(key) for block in blocks))] if changes else cells
