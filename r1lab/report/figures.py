"""The paper's figures, drawn from a run's own metrics.

Each function takes the rows of `metrics.jsonl` and returns a `Figure`. A title states what the
numbers say and is computed from them; "rises" and "falls" are said only where the 95 % intervals
of the first and the last evaluation do not overlap. With the run's `config`, a figure also marks
where the length cap was raised and the reference refreshed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.report.chart import GREY, MARKERS, OKABE_ITO, finish, panels, styled
from r1lab.report.folder import Row

Rows = Sequence[Row]


@dataclass(frozen=True)
class Measure:
    """How a quantity is called and printed. Without a unit it is a fraction, shown in per cent."""

    name: str
    unit: str = "%"

    def value(self, raw: float) -> float:
        return 100 * raw if self.unit == "%" else raw

    def number(self, raw: float | None) -> str:
        if raw is None or not math.isfinite(raw):
            return "–"
        if self.unit == "%":
            return f"{100 * raw:.1f}"
        return f"{raw:,.0f}" if abs(raw) >= 100 else f"{raw:.3g}"

    def text(self, raw: float | None) -> str:
        number = self.number(raw)
        return number + "\N{NO-BREAK SPACE}%" * (self.unit == "%" and number != "–")

    @property
    def title(self) -> str:
        return self.name[0].upper() + self.name[1:]

    @property
    def axis(self) -> str:
        """The name with its unit, which some names hold already."""
        return self.name if self.unit in self.name else f"{self.name} ({self.unit})"


MEASURES = {
    "pass_at_1": Measure("pass@1"),
    "pass_at_1_strict": Measure("pass@1, format required"),
    "format": Measure("format kept"),
    "mixing": Measure("answers that mix languages"),
    "in_order": Measure("searches in order"),
    "truncated": Measure("cut off at the cap"),
    "clip_fraction": Measure("tokens clipped"),
    "mean_tokens": Measure("tokens per answer", "tokens"),
    "reflection_per_answer": Measure("reflective words per answer", "words"),
    "reward": Measure("mean reward", "per answer"),
    "entropy": Measure("entropy", "nats per token"),
    "kl": Measure("KL to the reference", "nats per token"),
}
OF_SEVERAL = re.compile(r"(pass|cons)_at_(?!1$)(\d+)")  # pass@k and the majority vote of k answers


def measure_of(key: str) -> Measure:
    """The measure of a key of the metrics; a key nobody named is a part of the reward."""
    several = OF_SEVERAL.fullmatch(key)
    if several:
        name = "{}@{}".format(*several.groups())
        return Measure(name if several[1] == "pass" else f"{name} (majority vote)")
    return MEASURES.get(key, Measure(key, "per answer"))


@styled
def accuracy(rows: Rows, config: Mapping | None = None) -> Figure:
    """Accuracy and majority vote over steps, with 95 % bands (the paper's Fig. 1, in small)."""
    figure, (ax,) = panels()
    votes = Counter(key for row in rows for key in row if re.fullmatch(r"cons_at_\d+", key))
    usual = [key for key, _ in votes.most_common(1)]  # k may differ between evaluations
    for i, key in enumerate(["pass_at_1", *usual]):
        _draw(ax, rows, "eval", key, measure_of(key).name.split(" ")[0], i)
        bands = [(r["step"], *r[f"{key}_ci95"]) for r in rows if f"{key}_ci95" in r]
        if bands:
            steps, low, high = zip(*bands, strict=True)
            low, high = [100 * v for v in low], [100 * v for v in high]
            ax.fill_between(steps, low, high, color=OKABE_ITO[i], alpha=0.15, linewidth=0)
    finish(ax, finding(rows, "pass_at_1"), "held-out problems solved (%)", top=100.0)
    _mark_cap_raises(ax, rows, config or {})
    _mark_refreshes([ax], rows, config or {})
    return figure


@styled
def accuracy_by_level(rows: Rows) -> Figure:
    """pass@1 over steps, one line per level of difficulty (dark: easy, light: hard)."""
    figure, (ax,) = panels()
    evals = [row for row in rows if row["kind"] == "eval" and row.get("by_level")]
    levels = sorted({level for row in evals for level in row["by_level"]}, key=int)
    for i, level in enumerate(levels):
        here = [
            {"kind": "eval", "step": row["step"], "pass_at_1": cell["pass_at_1"],
             "pass_at_1_ci95": cell.get("ci95")}
            for row in evals if (cell := row["by_level"].get(level))
        ]  # fmt: skip
        shade = matplotlib.colormaps["viridis"](0.75 * i / max(1, len(levels) - 1))
        _draw(ax, here, "eval", "pass_at_1", f"level {level}", i, color=shade)
    finish(ax, finding(here, "pass_at_1", name=f"Level {levels[-1]}"), "pass@1 (%)", top=100.0)
    return figure


@styled
def length(rows: Rows, config: Mapping | None = None) -> Figure:
    """Tokens per answer over steps, held-out and in training, and the share cut off at the cap."""
    figure, (top, low) = panels((3, 1))
    _draw(top, rows, "train", "tokens_mean", "in training", 0)
    _draw(top, rows, "eval", "mean_tokens", "held out", 1)
    finish(top, finding(rows, "mean_tokens"), "tokens per answer (tokens)")
    _mark_cap_raises(top, rows, config or {})
    _draw(low, rows, "train", "truncated", "", 0, color=GREY)
    finish(low, "", "cut off at\nthe cap (%)")
    return figure


@styled
def reflection(rows: Rows) -> Figure:
    """Reflective words (wait, but, however, …) per answer over steps; v2 of the paper, C.2."""
    figure, (ax,) = panels()
    _draw(ax, rows, "train", "reflection", "in training", 0)
    _draw(ax, rows, "eval", "reflection_per_answer", "held out", 1)
    finish(ax, finding(rows, "reflection_per_answer"), "reflective words per answer (words)")
    return figure


@styled
def reward_parts(rows: Rows) -> Figure:
    """The total reward of the training answers and each of its parts over steps."""
    figure, (ax,) = panels()
    parts = sorted({key for row in rows for key in row if key.startswith("reward/")})
    for i, key in enumerate(parts):
        _draw(ax, rows, "train", key, key.removeprefix("reward/"), i)
    _draw(ax, rows, "train", "reward", "total", -1, linestyle="--")
    finish(ax, finding(rows, "reward", "train"), "reward per answer")
    return figure


@styled
def habits(rows: Rows) -> Figure:
    """Language mixing, repeated attempts and searches in order over steps, on held-out problems."""
    figure, (ax,) = panels()
    for i, (key, name) in enumerate(
        (("mixing", "mix languages"), ("repeats", "repeats"), ("in_order", "in order"))
    ):
        _draw(ax, rows, "eval", key, name, i)
    finish(ax, finding(rows, "in_order"), "share (%)")
    return figure


@styled
def entropy(rows: Rows) -> Figure:
    """Entropy of the sampling distribution over steps: near 0 there is nothing left to explore."""
    figure, (ax,) = panels()
    _draw(ax, rows, "train", "entropy", "", 0)
    finish(ax, finding(rows, "entropy", "train"), "entropy (nats per token)")
    return figure


@styled
def drift(rows: Rows, config: Mapping | None = None) -> Figure:
    """How far the policy moves: KL to the reference (k3 estimate), and the share clipped."""
    figure, axes = panels((1, 1))
    labels = {"kl": "KL (nats per token)", "clip_fraction": "tokens clipped (%)"}
    for i, (ax, key) in enumerate(zip(axes, labels, strict=True)):
        _draw(ax, rows, "train", key, "", i)
        values, measure = points(rows, "train", key)[1], MEASURES[key]
        mean, most = measure.text(fmean(values)), measure.text(max(values))
        finish(ax, f"{measure.title}: mean {mean}, highest {most}", labels[key])
    _mark_refreshes(axes, rows, config or {})
    return figure


@styled
def compare(arms: Mapping[str, Sequence[Rows]], key: str = "pass_at_1") -> Figure:
    """One measure of the evaluations for several arms: each seed thin, the mean of seeds thick.

    Args:
        arms: the metrics of each seed's run, by arm.
        key: of a measure that the evaluations hold.
    Raises:
        InputError: an arm without runs, or whose runs share no evaluated step.
    """
    figure, (ax,) = panels()
    measure, ends = measure_of(key), []
    for i, (arm, runs) in enumerate(arms.items()):
        seeds = [dict(zip(*points(run, "eval", key), strict=True)) for run in runs]
        steps = sorted(set.intersection(*map(set, seeds))) if seeds else []
        if not steps:
            raise InputError(f"Arm {arm!r}: its runs share no evaluated step with `{key}`.")
        for run in runs:
            _draw(ax, run, "eval", key, "", i, linewidth=0.9, alpha=0.6, marker="")
        mean = [
            {"kind": "eval", "step": step, key: fmean(seed[step] for seed in seeds)}
            for step in steps
        ]
        _draw(ax, mean, "eval", key, arm, i, linewidth=2.8)
        ends.append(f"{arm} {measure.text(mean[-1][key])}".replace(" ", "\N{NO-BREAK SPACE}"))
    top = 100.0 if measure.unit == "%" else None
    title = f"{measure.title} at the end: {', '.join(ends)}"
    finish(ax, title, measure.axis, top)
    return figure


def points(rows: Rows, kind: str, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of `key` in the rows of one kind that have it.

    Raises:
        InputError: a value that is not a number.
    """
    here = [row for row in rows if row["kind"] == kind and row.get(key) is not None]
    for row in here:
        if not isinstance(row[key], int | float):
            raise InputError(f"Metrics, {kind} row of step {row['step']}: `{key}` is no number.")
    return [row["step"] for row in here], [float(row[key]) for row in here]


def smooth(values: Sequence[float]) -> list[float]:
    """Centred running mean over about a twentieth of the run; shorter windows at the ends."""
    half = len(values) // 40
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def finding(rows: Rows, key: str, kind: str = "eval", name: str = "") -> str:
    """What the numbers say of `key`, in one line, from its first value to its last."""
    measure = measure_of(key)
    name = name or measure.title
    steps, values = points(rows, kind, key)
    if not steps:
        return name
    ends = smooth(values) if kind == "train" else values
    first, last = measure.text(ends[0]), measure.text(ends[-1])
    if len(steps) == 1:
        return f"{name}: {first} at step {steps[0]}"
    bands = [row.get(f"{key}_ci95") for row in rows if row["kind"] == kind and key in row]
    if bands[0] and bands[-1]:
        if bands[0][1] < bands[-1][0] or bands[-1][1] < bands[0][0]:
            verb = "rises" if ends[0] < ends[-1] else "falls"
            return f"{name} {verb} from {first} to {last} in {steps[-1]} steps"
        return f"{name}: {first} to {last}, intervals overlap"
    return f"{name}: from {first} to {last} in {steps[-1]} steps"


def _draw(ax: Axes, rows: Rows, kind: str, key: str, name: str, i: int, **look) -> None:
    """One series. Evaluations: a line with markers. Training: pale, its running mean over it."""
    measure = measure_of(key)
    steps, raw = points(rows, kind, key)
    values = [measure.value(value) for value in raw]
    look = {"color": OKABE_ITO[i], "marker": MARKERS[i], "linestyle": "-", "markevery": 1} | look
    look["clip_on"] = False  # a marker at 100 % is a whole marker
    if kind == "train":
        look["marker"] = ""
        ax.plot(steps, values, **look | {"linewidth": 0.7, "alpha": 0.35, "linestyle": "-"})
        values = smooth(values)
    ax.plot(steps, values, **look, label=name or "_")


def _mark_cap_raises(ax: Axes, rows: Rows, config: Mapping) -> None:
    """A dashed line, named above the panel, at each step that raised the length cap."""
    for step, cap in config.get("caps", [])[1:]:
        if step <= rows[-1]["step"]:
            ax.axvline(step, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
            ax.annotate(
                f"cap {cap}", (step, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
                textcoords="offset points", ha="center", fontsize=9, color=GREY,
            )  # fmt: skip
            ax.set_title(ax.get_title(loc="left"), pad=20)


def _mark_refreshes(axes: Sequence[Axes], rows: Rows, config: Mapping) -> None:
    """A triangle on each panel's axis where the reference was refreshed, explained below."""
    every = config.get("reference_every", 0)
    steps = list(range(every, rows[-1]["step"] + 1, every)) if every else []
    if not steps:
        return
    for ax in axes:
        look = {"linestyle": "", "marker": "^", "markersize": 7, "clip_on": False, "zorder": 5}
        across = ax.get_xaxis_transform()
        ax.plot(steps, [0] * len(steps), transform=across, color=GREY, markevery=1, **look)
    axes[-1].set_xlabel(f"{axes[-1].get_xlabel()};  ▲ reference refreshed")
