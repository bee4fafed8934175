"""Explorers: figures of GRPO's parts, and of a tree search, that redraw as their numbers are moved.

`NAME_figure(...)` draws and makes the point at its default arguments; `NAME()` puts sliders over
the same function. What a figure shows is also in words in its label: `figure.get_label()`.
"""

from __future__ import annotations

import html
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from ipywidgets import HTML, Button, Dropdown, FloatSlider, GridBox, Image, IntSlider, VBox, Widget
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from r1lab.objective import KL_ESTIMATORS, clipped_objective, group_advantages
from r1lab.report.figures import GREY, OKABE_ITO, png_bytes, styled
from r1lab.search.tree import Tree, mcts

BLUE, ORANGE = OKABE_ITO[:2]
WIDE = (7.2, 4.4)  # inches
SHADES = colormaps["cividis"]
DRAWING = threading.Lock()  # matplotlib's settings are global, and callbacks run in threads

REWARDS = (1.1, 0.1, 0.0, 1.0, 0.1, 0.1, 1.1, 0.0)
REFERENCE = (0.4, 0.3, 0.2, 0.1)  # probabilities of the four tokens of the KL explorer


class Explorer(VBox):
    """Controls over a drawing function, with the figure and its words under them.

    Args:
        draw: called with every control's value by name; the figure's label holds its words.
        controls: sliders and lists at the values where they begin; Reset returns there.
    """

    def __init__(self, draw: Callable[..., Figure], **controls: Widget) -> None:
        self.draw, self.controls = draw, controls
        self.picture, self.words = Image(format="png", width=720), HTML()
        self.start = {control: control.value for control in controls.values()}
        self.reset = Button(description="Reset", tooltip="Back to the values at the beginning")
        self.reset.on_click(self.put_back)
        for control in self.start:
            control.observe(self.redraw, "value")
        grid = GridBox([*self.start], layout={"grid_template_columns": "360px 360px"})
        super().__init__([self.reset, grid, self.picture, self.words])
        self.redraw()

    def put_back(self, _button: Button) -> None:
        for control, value in self.start.items():
            control.value = value

    def redraw(self, _change: object = None) -> None:
        with DRAWING:
            figure = self.draw(**{name: control.value for name, control in self.controls.items()})
            self.picture.value = png_bytes(figure)
        self.words.value = f'<p role="status">{html.escape(figure.get_label())}</p>'


def slider(name: str, value: float, low: float, high: float, step: float, tip: str) -> FloatSlider:
    return FloatSlider(value, min=low, max=high, step=step, description=name, tooltip=tip)


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
    mean, std, places = r.mean().item(), r.std(correction=0).item(), np.arange(1, 1 + len(rewards))
    figure = Figure(figsize=WIDE)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    top.bar(places, rewards, color=GREY)
    top.axhline(mean, color="black", linestyle="--")
    top.annotate(f"mean {mean:.2f}", (1, mean), (4, 0), ("axes fraction", "data"), "offset points")
    top.set(ylabel="reward")
    heights = {
        "divided by std": group_advantages(r)[0].tolist(),
        "mean subtracted only": group_advantages(r, divide_by_std=False)[0].tolist(),
    }
    for shift, (name, own) in zip((-0.2, 0.2), heights.items(), strict=True):
        bars = low.bar(places + shift, own, 0.4, label=name)
        low.bar_label(bars, fmt="%+.2f", fontsize=8, padding=1)
    low.set(ylabel="advantage", xlabel="completion (number in its group)", xticks=places)
    figure.legend(loc="outside lower center", ncols=2)
    scaled, centred = max(zip(*heights.values(), strict=True), key=lambda pair: abs(pair[0]))
    finding = f"Loudest advantage: {scaled:+.2f} divided by std, {centred:+.2f} without"
    if std == 0:
        finding = "All rewards are equal: every advantage is 0, the group teaches nothing"
    top.set_title(finding)
    said = (f"{name}: {', '.join(f'{x:+.2f}' for x in own)}" for name, own in heights.items())
    rest = f"Rewards: mean {mean:.2f}, std {std:.2f}. Advantages {'; '.join(said)}"
    figure.set_label(f"{finding}. {rest}.")
    return figure


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
    figure = Figure(figsize=WIDE)
    words = []
    for ax, A in zip(figure.subplots(1, 2), (1.0, -1.0), strict=True):
        grid = torch.linspace(0.0025, 1.9975, 400, dtype=torch.float64)
        x = torch.cat([grid, torch.tensor([ratio])]).requires_grad_()  # the last is the token's
        y = clipped_objective(x[None], torch.tensor([[A]]).to(x), clip_low, clip_high)[0]
        [slope] = torch.autograd.grad(y.sum(), x)
        curve, flat = y.detach(), slope[:-1] == 0
        ax.fill_between(grid, curve[:-1], where=flat, color="#dddddd", label="gradient 0")
        ax.plot(grid, grid * A, color=GREY, linestyle="--", marker="", label="not clipped")
        ax.plot(grid, curve[:-1], color=BLUE, linestyle="-", marker="", label="objective")
        ax.plot([ratio], curve[-1:], color=ORANGE, marker="o", markersize=9, markevery=1)
        force = f"A = {A:+.0f}: gradient {slope[-1] + 0.0:g} at ratio {ratio:.2f}"
        ax.set_title(force, fontsize=10)
        ax.set(xlabel="ratio (new probability / old)", ylabel="objective of one token")
        ax.legend()
        words.append(f"{force}, objective {curve[-1]:.2f}")
    above, below = f"above {1 + clip_high:.2f} where A > 0", f"below {1 - clip_low:.2f} where A < 0"
    finding = f"Flat {above}, and {below}; nowhere else"
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
    shifts = np.linspace(-3, 3, 61)
    figure = Figure(figsize=(7.2, 5.6))
    (both, spread), (mean, slope) = figure.subplots(2, 2)
    logits, places = torch.tensor(REFERENCE).log(), np.arange(1, 1 + len(REFERENCE))
    logits[token - 1] += shift
    both.bar(places - 0.2, REFERENCE, 0.4, label="reference", color=GREY)
    both.bar(places + 0.2, logits.softmax(-1).tolist(), 0.4, label="policy")
    both.set(title="Two distributions", xlabel="token", ylabel="probability", xticks=places)
    now = []
    for name in ("true KL", *KL_ESTIMATORS):
        numbers = _kl_numbers(name, [*shifts, shift], token)
        for ax, values in zip((mean, spread, slope), numbers, strict=True):
            ax.plot(shifts, values[:-1], label=name, marker="")
        m, s, g = (values[-1] for values in numbers)
        now.append(f"{name} mean {m:.3f}, gradient {round(g, 3) + 0.0:.3f}")
        now[-1] += f", std {s:.3f}" if name in KL_ESTIMATORS else ""
    for ax in (mean, spread, slope):
        ax.axvline(shift, color=GREY, linestyle=":")
        ax.set_xlabel("shift (nats)")
    mean.set(title="Mean: k1 and k3 are right", ylabel="nats per token")
    slope.set(title="Mean gradient: only k2 is right", ylabel="nats per nat of shift")
    spread.set(title="Spread of one sample", ylabel="std (nats)")
    both.legend()
    mean.legend()
    figure.set_label(
        f"At shift {shift:+.1f}: {'; '.join(now)} (nats). k1 and k3 have the KL's mean; as a loss, "
        "k1 pulls nowhere on average, k2 as the KL does, and k3 as the divergence the other way "
        "round."
    )
    return figure


def _kl_numbers(name: str, shifts: Sequence[float], token: int) -> list[list[float]]:
    """Means, stds and mean gradients (by autograd) of an estimator over each policy's own samples."""
    moved = torch.tensor(shifts, dtype=torch.float64, requires_grad=True)
    chosen = torch.nn.functional.one_hot(torch.tensor(token - 1), len(REFERENCE))
    ref = torch.tensor(REFERENCE).to(moved).log().expand(len(shifts), -1)
    logps = (ref + moved[:, None] * chosen).log_softmax(-1)
    weights = logps.detach().exp()  # samples are drawn, then held fixed
    if name in KL_ESTIMATORS:
        values = KL_ESTIMATORS[name](logps, ref)
    else:  # the gradient passes through the weights, too
        values = (logps.exp() * (logps - ref)).sum(1, keepdim=True)
    mean = (weights * values).sum(1)
    [gradient] = torch.autograd.grad(mean.sum(), moved)
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    return [numbers.tolist() for numbers in (mean, variance.sqrt(), gradient)]


def tree_explorer(tree: Tree, values: Mapping[str, Sequence[float]]) -> Explorer:
    """Step through an MCTS of this tree, with one of several values and any c."""
    most = len(tree.names) - 1
    return Explorer(
        lambda guide, step, c: tree_figure(tree, values[guide], step=step, c=c),
        guide=Dropdown(options=list(values), description="value", tooltip="What guides it"),
        step=IntSlider(most, min=0, max=most, description="nodes", tooltip="Written so far"),
        c=slider("c", 1.0, 0.0, 4.0, 0.1, "Weight of what is likely and rarely visited"),
    )


@styled
def tree_figure(
    tree: Tree, values: Sequence[float], *, step: int | None = None, c: float = 1.0
) -> Figure:
    """An MCTS of the whole tree after `step` nodes (default: until the right leaf is written).

    Filled: written, numbered in order; the shade is the value. The right leaf has an orange ring.
    """
    written = mcts(tree, values, budget=10**9, c=c).written[:step]
    x, y, seen = [], [0] * len(tree.names), Counter()
    for node, children in enumerate(tree.children):
        for child in children:
            y[child] = y[node] + 1
    for depth in y:  # each depth's nodes share its width
        seen[depth] += 1
        x.append((seen[depth] - 0.5) / y.count(depth))
    figure = Figure(figsize=(7.2, 3.6))
    ax = figure.subplots()
    ax.grid(False)
    for node, children in enumerate(tree.children):
        for child in children:
            color = "black" if child in written else "#c4c4c4"
            ax.plot([x[node], x[child]], [y[node], y[child]], color=color, linestyle="-", marker="")
    shades = [SHADES(value) if node in written else "white" for node, value in enumerate(values)]
    rings = [ORANGE if right else GREY for right in tree.right]
    ax.scatter(x, y, 210, color=shades, edgecolors=rings, linewidths=2, zorder=2)
    for number, node in enumerate(written, 1):
        ink = "white" if values[node] < 0.5 else "black"
        ax.text(x[node], y[node], number, color=ink, fontsize=7.5, ha="center", va="center")
    leaf = [not children for children in tree.children]
    tokens, tried = (sum(of[node] for node in written) for of in (tree.cost, leaf))
    found = "found" if any(tree.right[node] for node in written) else "not found"
    finding = f"{tokens} tokens, {tried} of {sum(leaf)} attempts: {found}"
    ax.set(title=finding, xlabel="attempts, from all plus (left) to all minus (right)",
           ylabel="signs chosen", xticks=[], yticks=y)  # fmt: skip
    ax.invert_yaxis()
    figure.colorbar(ScalarMappable(cmap=SHADES), ax=ax, label="value of a written node")
    names = ", ".join(tree.names[node] for node in written)
    figure.set_label(f"{finding}. Written in this order: {names or 'nothing yet'}.")
    return figure

