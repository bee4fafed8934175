"""Explorers: figures of GRPO's parts that redraw as their numbers are moved.

`NAME_figure(...)` draws and makes the point at its default arguments; `NAME()` puts sliders over
the same function. What a figure shows also stands in words in its label: `figure.get_label()`.
"""

from __future__ import annotations

import functools
import html
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from ipywidgets import HTML, Button, Dropdown, FloatSlider, GridBox, HBox, Image, VBox, Widget
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.grpo import KL_ESTIMATORS, clipped_objective, group_advantages
from r1lab.report.chart import GREY, OKABE_ITO, png_bytes, styled

BLUE, ORANGE, GREEN = OKABE_ITO[:3]
WIDE = (7.2, 4.4)  # inches
DRAWING = threading.Lock()  # matplotlib's settings are global, and callbacks run in threads

GROUPS = {
    "mixed": (1.1, 0.1, 0.0, 1.0, 0.1, 0.1, 1.1, 0.0),
    "one right of eight": (0.1, 0.1, 0.1, 1.1, 0.1, 0.1, 0.1, 0.1),
    "all but one right": (1.1, 1.1, 1.1, 1.1, 1.1, 0.1, 1.1, 1.1),
    "nearly equal": (1.05, 1.05, 1.05, 1.1, 1.05, 1.05, 1.05, 1.05),
    "all equal": (0.1,) * 8,
}
REFERENCE = (0.4, 0.3, 0.2, 0.1)  # probabilities of the four tokens of the KL explorer


@contextmanager
def one_sentence() -> Iterator[None]:
    """Within: what is wrong with an input is printed as its sentence, without a traceback."""
    try:
        yield
    except InputError as error:
        print(error)


class Explorer(VBox):
    """Controls over a drawing function, with the figure and its words under them.

    Args:
        draw: called with every control's value by name; the figure's label holds its words.
        controls: name -> slider or list, as they stand at the beginning; Reset returns there.
        groups: name -> values for the controls in their order, offered as a list.
    """

    def __init__(
        self,
        draw: Callable[..., Figure],
        controls: Mapping[str, Widget],
        groups: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.draw, self.controls = draw, dict(controls)
        self.picture, self.words = Image(format="png", width=720), HTML()
        self.reset = Button(description="Reset", tooltip="Back to the values at the beginning")
        start = [control.value for control in self.controls.values()]
        self.reset.on_click(lambda _: self.put(start))
        bar: list[Widget] = [self.reset]
        if groups:
            self.group = Dropdown(options=list(groups), description="example")
            self.group.observe(lambda change: self.put(groups[change["new"]]), "value")
            self.reset.on_click(lambda _: self.group.set_trait("value", next(iter(groups))))
            bar.insert(0, self.group)
        for control in self.controls.values():
            control.style.description_width = "80px"
            control.observe(self.redraw, "value")
        columns = {"grid_template_columns": "repeat(2, minmax(0, 360px))"}
        grid = GridBox(list(self.controls.values()), layout=columns)
        super().__init__([HBox(bar), grid, self.picture, self.words])
        self.redraw()

    def put(self, values: Sequence[float | int | str]) -> None:
        """Move all controls at once, and draw once."""
        for control, value in zip(self.controls.values(), values, strict=True):
            control.unobserve(self.redraw, "value")
            control.value = value
            control.observe(self.redraw, "value")
        self.redraw()

    def redraw(self, _change: object = None) -> None:
        with DRAWING:
            figure = self.draw(**{name: control.value for name, control in self.controls.items()})
            self.picture.value = png_bytes(figure)
        self.words.value = f'<p role="status">{html.escape(figure.get_label())}</p>'


def slider(name: str, value: float, low: float, high: float, step: float, tip: str) -> FloatSlider:
    return FloatSlider(value, min=low, max=high, step=step, description=name, tooltip=tip)


def advantage_explorer() -> Explorer:
    """Move the rewards of eight completions of one question, see their advantages."""
    first = next(iter(GROUPS.values()))
    controls = {
        f"r{i}": slider(f"reward {i}", reward, 0.0, 2.0, 0.05, f"Reward of completion {i}")
        for i, reward in enumerate(first, 1)
    }
    return Explorer(lambda **r: advantage_explorer_figure(tuple(r.values())), controls, GROUPS)


@styled
def advantage_explorer_figure(rewards: Sequence[float] = GROUPS["mixed"]) -> Figure:
    """A group's rewards, and its advantages with and without division by the std (v2 eq. 3)."""
    r = torch.tensor([rewards], dtype=torch.float64)
    mean, std = r.mean().item(), r.std(correction=0).item()
    scaled = group_advantages(r)[0].tolist()
    centred = group_advantages(r, divide_by_std=False)[0].tolist()
    figure = Figure(figsize=WIDE)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    place = range(1, len(rewards) + 1)
    top.bar(place, rewards, 0.5, color=GREY)
    top.axhline(mean, color="black", linestyle="--", linewidth=1.2)
    top.annotate(
        f"mean {mean:.2f}", (1, mean), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", fontsize=9, annotation_clip=False,
    )  # fmt: skip
    top.set(ylabel="reward", ylim=(0, max(1.2, 1.1 * max(rewards))))
    _bars(low, -0.23, scaled, BLUE, "", "divided by std")
    _bars(low, 0.23, centred, ORANGE, "///", "mean subtracted only")
    low.axhline(0, color="black", linewidth=0.8)
    edge = 1.25 * max(map(abs, [1.0, *scaled, *centred]))
    low.set(ylabel="advantage", xlabel="completion (number in its group)", ylim=(-edge, edge))
    low.set_xticks(place)
    low.legend(loc="lower left", bbox_to_anchor=(0, 0.98), ncols=2, fontsize=9)
    if len(set(rewards)) == 1:
        finding = "All rewards are equal: every advantage is 0, the group teaches nothing"
    else:
        loudest = max(range(len(rewards)), key=lambda i: abs(scaled[i]))
        finding = (
            f"Loudest advantage: {scaled[loudest]:+.2f} divided by std, "
            f"{centred[loudest]:+.2f} without"
        )
    top.set_title(finding)
    numbers = ", ".join(f"{a:+.2f}" for a in scaled)
    figure.set_label(
        f"{finding}. Rewards: mean {mean:.2f}, std {std:.2f}. Advantages divided by std: {numbers}; "
        f"mean subtracted only: {', '.join(f'{a:+.2f}' for a in centred)}."
    )
    return figure


def _bars(
    ax: Axes, shift: float, heights: list[float], color: str, hatch: str, label: str
) -> None:
    """Bars with their numbers at their ends, `shift` beside the completions' places."""
    place = [i + shift for i in range(1, len(heights) + 1)]
    bars = ax.bar(
        place, heights, 0.3, color=color if not hatch else "white", edgecolor=color, hatch=hatch,
        label=label,
    )  # fmt: skip
    ax.bar_label(bars, [f"{height:+.2f}" for height in heights], fontsize=8, padding=1)


def clip_landscape() -> Explorer:
    """Move the clip's two ends and a token's ratio, see objective and gradient."""
    controls = {
        "clip_low": slider("clip_low", 0.2, 0.0, 0.9, 0.02, "The ratio is clipped below 1 - this"),
        "clip_high": slider("clip_high", 0.28, 0.0, 0.9, 0.02, "The ratio is clipped above 1 + this"),
        "ratio": slider("ratio", 1.5, 0.02, 1.98, 0.02, "New probability / old, of one token"),
    }
    return Explorer(clip_landscape_figure, controls)


@styled
def clip_landscape_figure(
    clip_low: float = 0.2, clip_high: float = 0.28, ratio: float = 1.5
) -> Figure:
    """The clipped objective of one token over its ratio, A = +1 and A = -1 (v2 eq. 1).

    Shaded: where autograd says that the gradient is 0. The dot: the token at `ratio`.
    """
    grid = torch.linspace(0.0025, 1.9975, 400, dtype=torch.float64)
    figure = Figure(figsize=WIDE)
    words = []
    for ax, advantage in zip(figure.subplots(1, 2), (1.0, -1.0), strict=True):
        y, slope = _objective(grid, advantage, clip_low, clip_high)
        here, push = _objective(torch.tensor([ratio], dtype=torch.float64), advantage, clip_low,
                                clip_high)  # fmt: skip
        ax.fill_between(
            grid, 0, 1, where=slope == 0, transform=ax.get_xaxis_transform(), facecolor="#eeeeee",
            edgecolor="#c4c4c4", hatch="..", linewidth=0, label="gradient 0",
        )  # fmt: skip
        ax.plot(grid, grid * advantage, color=GREY, linestyle="--", linewidth=1.2, marker="",
                label="not clipped")  # fmt: skip
        ax.plot(grid, y, color=BLUE, linestyle="-", marker="", label="objective")
        ax.plot([ratio], here, color=ORANGE, marker="o", markersize=9, linestyle="", markevery=1)
        ax.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
        force = f"A = {advantage:+.0f}: gradient {push.item() + 0.0:g} at ratio {ratio:.2f}"
        ax.set_title(force, fontsize=10)
        ax.set(xlabel="ratio (new probability / old)", xlim=(0, 2))
        ax.set_ylim(*((0, 2.1) if advantage > 0 else (-2.1, 0)))
        ax.set_ylabel("objective of one token")
        words.append(f"{force}, objective {here.item():.2f}")
        ax.legend(loc="upper left" if advantage > 0 else "upper right", fontsize=9)
    finding = (
        f"Flat above {1 + clip_high:.2f} where A > 0, and below {1 - clip_low:.2f} where A < 0; "
        "nowhere else"
    )
    figure.suptitle(finding, x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.set_label(f"{finding}. {'; '.join(words)}.")
    return figure


def _objective(
    ratio: torch.Tensor, advantage: float, clip_low: float, clip_high: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The objective at each ratio and its derivative."""
    ratio = ratio.clone().requires_grad_()
    column = torch.tensor([[advantage]], dtype=ratio.dtype)
    y = clipped_objective(ratio[None], column, clip_low, clip_high)[0]
    [slope] = torch.autograd.grad(y.sum(), ratio)
    return y.detach(), slope


def kl_explorer() -> Explorer:
    """Move a policy away from its reference, see the three estimators of the KL."""
    controls = {
        "shift": slider("shift", 1.0, -3.0, 3.0, 0.1, "Added to the logit of one token, in nats"),
        "token": Dropdown(
            options=[(f"{i} (reference {p:.0%})", i) for i, p in enumerate(REFERENCE, 1)],
            value=4, description="token",
        ),
    }  # fmt: skip
    return Explorer(kl_explorer_figure, controls)


@styled
def kl_explorer_figure(shift: float = 1.0, token: int = 4) -> Figure:
    """k1, k2 and k3: mean, spread and mean gradient, exact over a vocabulary of four tokens.

    The policy is the reference with `shift` (nats) added to the logit of `token`. The gradient is
    that of the sampled estimate, as a loss has it, with respect to the shift.
    """
    grid = torch.linspace(-3, 3, 61, dtype=torch.float64)
    curves = {name: [_kl_numbers(name, s.item(), token) for s in grid] for name in _KL_LOOKS}
    figure = Figure(figsize=(7.2, 5.6))
    (bars, spread), (mean, slope) = figure.subplots(2, 2)
    _distributions(bars, shift, token)
    for ax, column in ((mean, 0), (spread, 1), (slope, 2)):
        for name, (color, line) in _KL_LOOKS.items():
            if not (name == "true KL" and ax is spread):
                ax.plot(grid, [row[column] for row in curves[name]], line, color=color, label=name,
                        marker="", linewidth=4 if name == "true KL" else 1.8)  # fmt: skip
        ax.axvline(shift, color=GREY, linewidth=0.8, linestyle=":")
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.set_xlabel("shift (nats)")
    mean.set(title="Mean: k1 and k3 are right", ylabel="nats per token")
    slope.set(title="Mean gradient: only k2 is right", ylabel="nats per nat of shift")
    spread.set(title="Spread of one sample", ylabel="std (nats)")
    mean.legend(fontsize=9)
    now = {name: _kl_numbers(name, shift, token) for name in _KL_LOOKS}
    values = "; ".join(
        f"{name} mean {m:.3f}, gradient {round(g, 3) + 0.0:.3f}" + (f", std {s:.3f}" if s else "")
        for name, (m, s, g) in now.items()
    )
    figure.set_label(
        f"At shift {shift:+.1f}: {values} (nats). k1 and k3 have the KL's mean; as a loss, k1 pulls "
        "nowhere on average, k2 as the KL does, and k3 as the divergence the other way round."
    )
    return figure


_KL_LOOKS = {
    "true KL": ("#bbbbbb", "-"),
    "k1": (BLUE, "-"),
    "k2": (ORANGE, "--"),
    "k3": (GREEN, "-."),
}


@functools.cache
def _kl_numbers(name: str, shift: float, token: int) -> tuple[float, float, float]:
    """Mean, std and mean gradient (by autograd) of an estimator over the policy's own samples."""
    moved = torch.tensor(shift, dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([REFERENCE], dtype=torch.float64).log()
    chosen = torch.nn.functional.one_hot(torch.tensor([token - 1]), len(REFERENCE))
    logps = (ref + moved * chosen).log_softmax(-1)
    if name == "true KL":
        loss = (logps.exp() * (logps - ref)).sum()  # the gradient passes through the weights
        values = loss.expand_as(ref)
    else:
        values = KL_ESTIMATORS[name](logps, ref)
        loss = (logps.detach().exp() * values).sum()  # samples are drawn, then held fixed
    [gradient] = torch.autograd.grad(loss, moved)
    weights = logps.detach().exp()
    variance = (weights * (values.detach() - loss.detach()) ** 2).sum()
    return loss.item(), variance.sqrt().item(), gradient.item()


def _distributions(ax: Axes, shift: float, token: int) -> None:
    logits = torch.tensor(REFERENCE).log()
    logits[token - 1] += shift
    place = range(1, len(REFERENCE) + 1)
    for side, heights, look in (
        (-0.2, REFERENCE, {"color": GREY, "label": "reference"}),
        (0.2, logits.softmax(-1).tolist(),
         {"color": "white", "edgecolor": BLUE, "hatch": "///", "label": "policy"}),
    ):  # fmt: skip
        ax.bar([i + side for i in place], heights, 0.38, **look)
    ax.set(title="Two distributions", xlabel="token", ylabel="probability", ylim=(0, 1))
    ax.set_xticks(place)
    ax.legend(fontsize=9)
