"""A completion token by token, as training sees it.

The numbers are not stored with a run. They are computed here, by scoring the stored text with two
policies: a later one, and the reference it came from.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

import matplotlib
import torch
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.objective import k3
from r1lab.lab.display import html_table
from r1lab.lab.widgets import BLUE, ORANGE, WIDE
from r1lab.models.policy import Policy
from r1lab.report.figures import styled


@dataclass(frozen=True)
class TokenScores:
    """The tokens of one completion and their numbers in nats, one each; `measures` by their names."""

    tokens: list[str]
    measures: dict[str, list[float]]

    @property
    def largest(self) -> list[int]:
        """The places of the tokens, the largest log ratio first, whatever its sign."""
        ratios = self.measures["log ratio"]
        return sorted(range(len(ratios)), key=lambda i: -abs(ratios[i]))


def score_tokens(
    policy: Policy, reference: Policy, tokenizer, prompt: str, completion: str, *, ended: bool = True
) -> TokenScores:
    """Score a completion's tokens under two policies, at temperature 1.

    The text is tokenised again: where a tokenizer can write it in two ways, the tokens may differ
    from those sampled.

    Args:
        prompt: with its template.
        ended: the end token follows; False for a completion that was cut off.
    Raises:
        InputError: nothing to score.
    """
    asked = tokenizer(prompt).input_ids
    answer = tokenizer(completion, add_special_tokens=False).input_ids
    answer += [tokenizer.eos_token_id] * ended
    if not answer:
        raise InputError("The completion is empty: there is no token to inspect.")
    ids = torch.tensor([asked + answer], device=next(policy.parameters()).device)
    inside = torch.arange(ids.shape[1], device=ids.device)[None] >= len(asked)
    with torch.no_grad():
        now, before = policy(ids, inside, 1.0), reference(ids, inside, 1.0)
    measures = {
        "log-prob": now.logp,
        "of reference": before.logp,
        "log ratio": now.logp - before.logp,
        "entropy": now.entropy,
        "KL": k3(now.logp, before.logp),
    }
    return TokenScores(
        [tokenizer.decode([token]) for token in answer],
        {name: values[0].tolist() for name, values in measures.items()},
    )


@styled
def rollout_inspector_figure(scores: TokenScores) -> Figure:
    """The log ratio of each token as a bar; the five largest carry their token's text."""
    ratios = scores.measures["log ratio"]
    figure = Figure(figsize=(WIDE[0], 3.2))
    ax = figure.subplots()
    colors = [BLUE if ratio > 0 else ORANGE for ratio in ratios]
    ax.bar(range(1, len(ratios) + 1), ratios, color=colors, edgecolor=colors, linewidth=0.8)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xlabel="position of the token in the completion", ylabel="log policy / reference (nats)")
    ax.margins(y=0.2)
    few, covered = 0, 0.0
    while 2 * covered < sum(map(abs, ratios)):
        covered += abs(ratios[scores.largest[few]])
        few += 1
    for i in scores.largest[:5]:
        up = 1 if ratios[i] >= 0 else -1
        ax.annotate(_printable(scores.tokens[i]), (i + 1, ratios[i]), xytext=(0, 3 * up),
                    textcoords="offset points", ha="center", fontsize=9,
                    va="bottom" if up > 0 else "top")  # fmt: skip
    finding = f"Half of the log ratio, in size, sits in {few} of {len(ratios)} tokens"
    ax.set_title(finding)
    loudest = ", ".join(f"“{scores.tokens[i]}” {ratios[i]:+.2f}" for i in scores.largest[:5])
    figure.set_label(f"{finding}. Its first in size, {ax.get_ylabel()}: {loudest}.")
    return figure


def tokens_html(scores: TokenScores) -> str:
    """The tokens, coloured by their log ratio, and a table with every number."""
    ratios = scores.measures["log ratio"]
    most = max(abs(ratios[scores.largest[0]]), 1e-9)
    spans = []
    for token, ratio in zip(scores.tokens, ratios, strict=True):
        share = 0.65 * abs(ratio) / most  # black text can be read on the strongest colour
        color = matplotlib.colors.to_rgb(BLUE if ratio > 0 else ORANGE)
        mixed = matplotlib.colors.to_hex([1 - share * (1 - part) for part in color])
        line = "underline" if ratio < -0.2 * most else "none"
        spans.append(
            f'<span title="{ratio:+.3f}" style="background:{mixed};padding:1px 3px;margin:1px;'
            f'display:inline-block;text-decoration:{line}">{html.escape(token)}</span>'
        )
    columns = [[f"{value:.3f}" for value in values] for values in scores.measures.values()]
    table = html_table(["token", *scores.measures], zip(scores.tokens, *columns, strict=True))
    return (
        f"<p>{''.join(spans)}</p><p>Colour: log policy / reference (nats). Blue is positive, orange "
        "and underlined negative, white near 0.</p><details><summary>All numbers as a table "
        f"(nats)</summary>{table}</details>"
    )


def _printable(token: str) -> str:
    """Characters that matplotlib's own font lacks become squares."""
    return "".join(c if ord(c) < 0x2E80 else "□" for c in token).replace("$", r"\$")
