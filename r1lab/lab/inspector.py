"""The rollout inspector: a completion token by token, as training sees it.

The numbers are not stored with a run. They are computed here, by scoring the stored text with two
policies: a later one, and the reference it came from.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from ipywidgets import HTML, Dropdown, IntSlider, SelectionSlider
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.grpo import k3
from r1lab.lab.widgets import BLUE, ORANGE, WIDE, Explorer, one_sentence
from r1lab.models.policy import Policy, load_policy
from r1lab.report.chart import styled
from r1lab.report.folder import Row, read_run
from r1lab.sources.templates import apply_template

# What tokens are coloured by: its label with the unit.
MEASURES = {
    "log ratio": "log policy / reference (nats)",
    "advantage": "advantage (stds of the group)",
    "entropy": "entropy of the policy (nats)",
    "KL": "KL to the reference, k3 (nats)",
}


@dataclass(frozen=True)
class TokenScores:
    """The tokens of one completion and their numbers, one each; `measures` by their names."""

    tokens: list[str]
    logps: list[float]
    ref_logps: list[float]
    measures: dict[str, list[float]]


def score_tokens(
    policy: Policy, reference: Policy, tokenizer, prompt: str, completion: str, *,
    ended: bool = True, advantage: float = 0.0, temperature: float = 1.0,
) -> TokenScores:  # fmt: skip
    """Score a completion's tokens under two policies. All logarithms are natural (nats).

    The text is tokenised again: where a tokenizer can write it in two ways, the tokens may differ
    from those sampled.

    Args:
        prompt: with its template.
        ended: the end token follows; False for a completion that was cut off.
        advantage: of the completion; GRPO gives each of its tokens the same.
    Raises:
        InputError: nothing to score.
    """
    start = tokenizer(prompt).input_ids
    own = tokenizer(completion, add_special_tokens=False).input_ids
    own = own + [tokenizer.eos_token_id] * ended
    if not own:
        raise InputError("The completion is empty: there is no token to inspect.")
    ids = torch.tensor([start + own], device=next(policy.parameters()).device)
    inside = torch.arange(ids.shape[1], device=ids.device)[None] >= len(start)
    with torch.no_grad():
        now, before = (one(ids, inside, temperature) for one in (policy, reference))
    measures = {
        "log ratio": now.logp - before.logp,
        "advantage": torch.full_like(now.logp, advantage),
        "entropy": now.entropy,
        "KL": k3(now.logp, before.logp),
    }
    return TokenScores(
        [tokenizer.decode([token]) for token in own], now.logp[0].tolist(), before.logp[0].tolist(),
        {name: values[0].tolist() for name, values in measures.items()},
    )  # fmt: skip


@styled
def rollout_inspector_figure(scores: TokenScores, measure: str = "log ratio") -> Figure:
    """One bar per token; the five largest carry their token's text."""
    values = scores.measures[measure]
    figure = Figure(figsize=(WIDE[0], 3.2))
    ax = figure.subplots()
    colors = [BLUE if value > 0 else ORANGE for value in values]
    ax.bar(range(1, len(values) + 1), values, color=colors, edgecolor=colors, linewidth=0.8)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xlabel="position of the token in the completion", ylabel=MEASURES[measure])
    ax.margins(y=0.2)
    sizes = [abs(value) for value in values]
    order = sorted(range(len(values)), key=lambda i: -sizes[i])
    few = next(k for k in range(len(order) + 1) if 2 * sum(sizes[i] for i in order[:k]) >= sum(sizes))
    for i in order[:5]:
        if len(set(values)) > 1:
            up = 1 if values[i] >= 0 else -1
            ax.annotate(_printable(scores.tokens[i]), (i + 1, values[i]), xytext=(0, 3 * up),
                        textcoords="offset points", ha="center", fontsize=9,
                        va="bottom" if up > 0 else "top")  # fmt: skip
    finding = f"Half of the {measure}, in size, sits in {few} of {len(values)} tokens"
    if len(set(values)) == 1:
        finding = f"Every token has the same {measure}: {values[0]:+.2f}"
    ax.set_title(finding)
    loudest = ", ".join(f"“{scores.tokens[i]}” {values[i]:+.2f}" for i in order[:5])
    figure.set_label(f"{finding}. Its first in size, {MEASURES[measure]}: {loudest}.")
    return figure


def rollout_inspector(
    run: str | Path, policy: str | Path, reference: str | Path
) -> Inspector | None:
    """Inspect the completions of a run's samples.jsonl.

    Args:
        run: its folder.
        policy, reference: folders of models, as data/zero and data/base; they score the text.
    """
    with one_sentence():
        return Inspector(run, policy, reference)


class Inspector(Explorer):
    """An explorer of stored completions, with their coloured text and a table of numbers."""

    def __init__(self, run: str | Path, policy: str | Path, reference: str | Path) -> None:
        found = read_run(run)
        self.template = found.config.get("template", "small")
        self.rows: dict[int, list[Row]] = {}
        for row in found.samples:
            self.rows.setdefault(row["step"], []).append(row)
        if not self.rows:
            raise InputError(f"{run} has no samples: samples.jsonl is missing or empty.")
        self.policy, self.tokenizer = load_policy(policy)
        self.reference, _ = load_policy(reference)
        self.scores = functools.lru_cache(maxsize=64)(self._scores)
        self.text = HTML()
        last = self.rows[max(self.rows)]  # the best answer is shown first; of several, the longest
        best = max(last, key=lambda row: (row.get("advantage") or 0.0, len(row["completion"])))
        most = max(2, *map(len, self.rows.values()))
        controls = {
            "step": SelectionSlider(options=sorted(self.rows), value=max(self.rows),
                                    description="step", tooltip="Policy updates before it"),
            "answer": IntSlider(last.index(best) + 1, min=1, max=most, description="answer",
                                tooltip="Which of the answers stored at this step"),
            "measure": Dropdown(options=list(MEASURES), description="colour by",
                                tooltip="The number that colours the tokens"),
        }  # fmt: skip
        super().__init__(self.draw_sample, controls)
        self.children = (*self.children, self.text)

    def _scores(self, step: int, answer: int) -> tuple[Row, TokenScores]:
        row = self.rows[step][min(answer, len(self.rows[step])) - 1]
        prompt = apply_template(self.template, row["prompt"], self.tokenizer)
        ended, advantage = row.get("finish") == "stop", row.get("advantage") or 0.0
        return row, score_tokens(self.policy, self.reference, self.tokenizer, prompt,
                                 row["completion"], ended=ended, advantage=advantage)  # fmt: skip

    def draw_sample(self, step: int, answer: int, measure: str) -> Figure:
        row, scores = self.scores(step, answer)
        self.text.value = sample_html(row, scores, measure)
        return rollout_inspector_figure(scores, measure)


def sample_html(row: Row, scores: TokenScores, measure: str) -> str:
    """The prompt, the tokens on their colours, and a table with every number."""
    rewards = ", ".join(f"{name} {value:g}" for name, value in row["rewards"].items()
                        if value is not None)  # fmt: skip
    given = row.get("advantage")
    advantage = "none, it was an evaluation" if given is None else f"{given:+.2f}"
    tokens, table = [], []
    numbers = zip(scores.logps, scores.ref_logps, *scores.measures.values(), strict=True)
    head = ("log-prob", "of reference", *scores.measures)
    looks = _looks(scores.measures[measure])
    for i, (token, values, (color, line)) in enumerate(
        zip(scores.tokens, numbers, looks, strict=True), 1
    ):
        text = html.escape(token)
        tip = ", ".join(f"{name} {value:+.3f}" for name, value in zip(head, values, strict=True))
        tokens.append(
            f'<span title="{i}: {html.escape(tip)}" style="background:{color};padding:1px 3px;'
            f'margin:1px;display:inline-block;text-decoration:{line}">{text}</span>'
        )
        cells = "".join(f"<td>{round(value, 3) + 0.0:.3f}</td>" for value in values)
        table.append(f"<tr><td>{i}</td><td>{text}</td>{cells}</tr>")
    titles = "".join(f"<th>{name}</th>" for name in ("token", "text", *head))
    return (
        '<div style="background:white;color:#222;padding:8px;line-height:1.5;max-width:720px">'
        f"<p><b>{html.escape(row['prompt'])}</b> (rewards: {html.escape(rewards)}; "
        f"advantage: {advantage})</p><p>{''.join(tokens)}</p>"
        f"<p>Colour: {MEASURES[measure]}. Blue is positive, orange and underlined negative, white "
        "near 0. Point at a token for its numbers.</p><details><summary>All numbers as a table "
        f"(nats)</summary><table><tr>{titles}</tr>{''.join(table)}</table></details></div>"
    )


def _looks(values: Sequence[float]) -> list[tuple[str, str]]:
    """A background that black text can be read on, and an underline for clearly negative values."""
    most = max(max(map(abs, values)), 1e-9)
    looks = []
    for value in values:
        share = 0.65 * min(1.0, abs(value) / most)
        color = matplotlib.colors.to_rgb(BLUE if value > 0 else ORANGE)
        mixed = matplotlib.colors.to_hex([1 - share * (1 - part) for part in color])
        looks.append((mixed, "underline" if value < -0.2 * most else "none"))
    return looks


def _printable(token: str) -> str:
    """Characters that matplotlib's own font lacks become squares."""
    return "".join(c if ord(c) < 0x2E80 else "□" for c in token).replace("$", r"\$")
