"""Explorers: figures of GRPO's parts that redraw as their numbers are moved.

`NAME_figure(...)` draws and makes the point at its default arguments; `NAME()` puts sliders over
the same function. What a figure shows is also in words in its label: `figure.get_label()`.
"""

from __future__ import annotations

import functools
import html
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from ipywidgets import HTML, Button, Dropdown, FloatSlider, GridBox, Image, VBox, Widget
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.objective import KL_ESTIMATORS, clipped_objective, group_advantages
from r1lab.report.figures import GREY, OKABE_ITO, png_bytes, styled

BLUE, ORANGE, GREEN = OKABE_ITO[:3]
WIDE = (7.2, 4.4)  # inches
DRAWING = threading.Lock()  # matplotlib's settings are global, and callbacks run in threads

REWARDS = (1.1, 0.1, 0.0, 1.0, 0.1, 0.1, 1.1, 0.0)
REFERENCE = (0.4, 0.3, 0.2, 0.1)  # probabilities of the four tokens of the KL explorer
KL_LOOKS = {"true KL": ("#bbbbbb", "-"), "k1": (BLUE, "-"), "k2": (ORANGE, "--"), "k3": (GREEN, "-.")}


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
        controls: sliders and lists at the values where they begin; Reset returns there.
    """

    def __init__(self, draw: Callable[..., Figure], **controls: Widget) -> None:
        self.draw, self.controls = draw, controls
        self.picture, self.words = Image(format="png", width=720), HTML()
        self.start = {name: control.value for name, control in controls.items()}
        self.reset = Button(description="Reset", tooltip="Back to the values at the beginning")
        self.reset.on_click(lambda _: self.put_back())
        for control in controls.values():
            control.style.description_width = "80px"
            control.observe(self.redraw, "value")
        columns = {"grid_template_columns": "repeat(2, minmax(0, 360px))"}
        grid = GridBox(list(controls.values()), layout=columns)
        super().__init__([self.reset, grid, self.picture, self.words])
        self.redraw()

    def put_back(self) -> None:
        for name, value in self.start.items():
            self.controls[name].value = value

    def redraw(self, _change: object = None) -> None:
        with DRAWING:
            figure = self.draw(**{name: control.value for name, control in self.controls.items()})
            self.picture.value = png_bytes(figure)
        self.words.value = f'<p role="status">{html.escape(figure.get_label())}</p>'


def slider(name: str, value: float, low: float, high: float, step: float, tip: str) -> FloatSlider:
    return FloatSlider(value, min=low, max=high, step=step, description=name, tooltip=tip)


def _bars(
    ax: Axes, shift: float, heights: Sequence[float], color: str, label: str, hatch: str = ""
) -> None:
    """A bar for each of some numbered things; hatched ones are white inside."""
    place = [number + shift for number in range(1, len(heights) + 1)]
    ax.bar(place, heights, 0.38, color="white" if hatch else color, edgecolor=color, hatch=hatch,
           label=label)  # fmt: skip
    ax.set_xticks(range(1, len(heights) + 1))


def advantage_explorer() -> Explorer:
    """Move the rewards of eight completions of one question, see their advantages."""
    controls = {
        f"r{i}": slider(f"reward {i}", reward, 0.0, 2.0, 0.05, f"Reward of completion {i}")
        for i, reward in enumerate(REWARDS, 1)
    }
    return Explorer(lambda **rewards: advantage_explorer_figure([*rewards.values()]), **controls)


@styled
def advantage_explorer_figure(rewards: Sequence[float] = REWARDS) -> Figure:
    """A group's rewards, and its advantages with and without division by the std (v2 eq. 3)."""
    r = torch.tensor([rewards], dtype=torch.float64)
    mean, std = r.mean().item(), r.std(correction=0).item()
    scaled = group_advantages(r)[0].tolist()
    centred = group_advantages(r, divide_by_std=False)[0].tolist()
    figure = Figure(figsize=WIDE)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    top.bar(range(1, len(rewards) + 1), rewards, 0.5, color=GREY)
    top.axhline(mean, color="black", linestyle="--", linewidth=1.2)
    top.annotate(f"mean {mean:.2f}", (1, mean), xycoords=("axes fraction", "data"), xytext=(4, 0),
                 textcoords="offset points", va="center", fontsize=9)  # fmt: skip
    top.set(ylabel="reward", ylim=(0, max(1.2, 1.1 * max(rewards))))
    _bars(low, -0.23, scaled, BLUE, "divided by std")
    _bars(low, 0.23, centred, ORANGE, "mean subtracted only", "///")
    for bars, heights in zip(low.containers, (scaled, centred), strict=True):
        low.bar_label(bars, [f"{height:+.2f}" for height in heights], fontsize=8, padding=1)
    low.axhline(0, color="black", linewidth=0.8)
    edge = 1.25 * max(map(abs, [1.0, *scaled, *centred]))
    low.set(ylabel="advantage", xlabel="completion (number in its group)", ylim=(-edge, edge))
    low.legend(loc="lower left", bbox_to_anchor=(0, 0.98), ncols=2, fontsize=9)
    i = max(range(len(rewards)), key=lambda i: abs(scaled[i]))
    finding = f"Loudest advantage: {scaled[i]:+.2f} divided by std, {centred[i]:+.2f} without"
    if std == 0:
        finding = "All rewards are equal: every advantage is 0, the group teaches nothing"
    top.set_title(finding)
    figure.set_label(
        f"{finding}. Rewards: mean {mean:.2f}, std {std:.2f}. Advantages divided by std: "
        f"{_signed(scaled)}; mean subtracted only: {_signed(centred)}."
    )
    return figure


def _signed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:+.2f}" for value in values)


def clip_landscape() -> Explorer:
    """Move the clip's two ends and a token's ratio, see objective and gradient."""
    return Explorer(
        clip_landscape_figure,
        clip_low=slider("clip_low", 0.2, 0.0, 0.9, 0.02, "The ratio is clipped below 1 - this"),
        clip_high=slider("clip_high", 0.28, 0.0, 0.9, 0.02, "The ratio is clipped above 1 + this"),
        ratio=slider("ratio", 1.5, 0.02, 1.98, 0.02, "New probability / old, of one token"),
    )


@styled
def clip_landscape_figure(
    clip_low: float = 0.2, clip_high: float = 0.28, ratio: float = 1.5
) -> Figure:
    """The clipped objective of one token over its ratio, A = +1 and A = -1 (v2 eq. 1).

    Shaded: where autograd says that the gradient is 0. The dot: the token at `ratio`.
    """
    ratios = torch.linspace(0.0025, 1.9975, 400, dtype=torch.float64)
    ratios = torch.cat([ratios, torch.tensor([ratio])])  # the last is the token's
    figure = Figure(figsize=WIDE)
    words = []
    for ax, advantage in zip(figure.subplots(1, 2), (1.0, -1.0), strict=True):
        x = ratios.clone().requires_grad_()
        A = torch.tensor([[advantage]], dtype=x.dtype)
        y = clipped_objective(x[None], A, clip_low, clip_high)[0]
        [slope] = torch.autograd.grad(y.sum(), x)
        grid, curve, flat = ratios[:-1], y.detach()[:-1], slope[:-1] == 0
        ax.fill_between(grid, 0, 1, where=flat, transform=ax.get_xaxis_transform(),
                        facecolor="#eeeeee", edgecolor="#c4c4c4", hatch="..", linewidth=0,
                        label="gradient 0")  # fmt: skip
        ax.plot(grid, grid * advantage, color=GREY, linestyle="--", linewidth=1.2, marker="",
                label="not clipped")  # fmt: skip
        ax.plot(grid, curve, color=BLUE, linestyle="-", marker="", label="objective")
        ax.plot([ratio], y.detach()[-1:], color=ORANGE, marker="o", markersize=9, markevery=1)
        ax.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
        force = f"A = {advantage:+.0f}: gradient {slope[-1] + 0.0:g} at ratio {ratio:.2f}"
        ax.set_title(force, fontsize=10)
        ax.set(xlabel="ratio (new probability / old)", ylabel="objective of one token",
               xlim=(0, 2), ylim=sorted((0, 2.1 * advantage)))  # fmt: skip
        ax.legend(loc="upper left" if advantage > 0 else "upper right", fontsize=9)
        words.append(f"{force}, objective {y[-1]:.2f}")
    finding = (
        f"Flat above {1 + clip_high:.2f} where A > 0, and below {1 - clip_low:.2f} where A < 0; "
        "nowhere else"
    )
    figure.suptitle(finding, x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.set_label(f"{finding}. {'; '.join(words)}.")
    return figure


def kl_explorer() -> Explorer:
    """Move a policy away from its reference, see the three estimators of the KL."""
    tokens = [(f"{i} (reference {p:.0%})", i) for i, p in enumerate(REFERENCE, 1)]
    return Explorer(
        kl_explorer_figure,
        shift=slider("shift", 1.0, -3.0, 3.0, 0.1, "Added to the logit of one token, in nats"),
        token=Dropdown(options=tokens, value=4, description="token"),
    )


@styled
def kl_explorer_figure(shift: float = 1.0, token: int = 4) -> Figure:
    """k1, k2 and k3: mean, spread and mean gradient, exact over a vocabulary of four tokens.

    The policy is the reference with `shift` (nats) added to the logit of `token`. The gradient is
    that of the sampled estimate, as a loss has it, with respect to the shift.
    """
    grid = torch.linspace(-3, 3, 61, dtype=torch.float64).tolist()
    figure = Figure(figsize=(7.2, 5.6))
    (both, spread), (mean, slope) = figure.subplots(2, 2)
    logits = torch.tensor(REFERENCE).log()
    logits[token - 1] += shift
    _bars(both, -0.2, REFERENCE, GREY, "reference")
    _bars(both, 0.2, logits.softmax(-1).tolist(), BLUE, "policy", "///")
    both.set(title="Two distributions", xlabel="token", ylabel="probability", ylim=(0, 1))
    now = []
    for name, (color, line) in KL_LOOKS.items():
        curves = zip(*(_kl_numbers(name, moved, token) for moved in grid), strict=True)
        for ax, values in zip((mean, spread, slope), curves, strict=True):
            if name != "true KL" or ax is not spread:
                ax.plot(grid, values, line, color=color, label=name, marker="",
                        linewidth=4 if name == "true KL" else 1.8)  # fmt: skip
        m, s, g = _kl_numbers(name, shift, token)
        now.append(f"{name} mean {m:.3f}, gradient {round(g, 3) + 0.0:.3f}")
        now[-1] += f", std {s:.3f}" if s else ""
    for ax in (mean, spread, slope):
        ax.axvline(shift, color=GREY, linewidth=0.8, linestyle=":")
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.set_xlabel("shift (nats)")
    mean.set(title="Mean: k1 and k3 are right", ylabel="nats per token")
    slope.set(title="Mean gradient: only k2 is right", ylabel="nats per nat of shift")
    spread.set(title="Spread of one sample", ylabel="std (nats)")
    for ax in (both, mean):
        ax.legend(fontsize=9)
    figure.set_label(
        f"At shift {shift:+.1f}: {'; '.join(now)} (nats). k1 and k3 have the KL's mean; as a loss, "
        "k1 pulls nowhere on average, k2 as the KL does, and k3 as the divergence the other way "
        "round."
    )
    return figure


@functools.cache
def _kl_numbers(name: str, shift: float, token: int) -> tuple[float, float, float]:
    """Mean, std and mean gradient (by autograd) of an estimator over the policy's own samples."""
    moved = torch.tensor(shift, dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([REFERENCE], dtype=torch.float64).log()
    chosen = torch.nn.functional.one_hot(torch.tensor([token - 1]), len(REFERENCE))
    logps = (ref + moved * chosen).log_softmax(-1)
    weights = logps.detach().exp()  # samples are drawn, then held fixed
    if name == "true KL":
        loss = (logps.exp() * (logps - ref)).sum()  # the gradient passes through the weights
        values = loss.expand_as(ref)
    else:
        values = KL_ESTIMATORS[name](logps, ref)
        loss = (weights * values).sum()
    [gradient] = torch.autograd.grad(loss, moved)
    variance = (weights * (values - loss).detach() ** 2).sum()
    return loss.item(), variance.sqrt().item(), gradient.item()
