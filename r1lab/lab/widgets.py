"""Explorers: pictures whose numbers a reader drags, drawn at once by the browser; and a box to ask a model.

Each explorer is a page of its own in the folder `explorers`: NAME.html draws, and NAME.svg is what it shows
before anything has moved (`python -m tests.tools.stills` writes it).
"""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path

from IPython.display import display
from ipywidgets import HTML, Text, VBox
from jinja2 import Environment, PackageLoader

from r1lab.errors import InputError
from r1lab.models.policy import load_policy
from r1lab.report.answers import SHOWN, Answer, Answers, answer_of, attempts_of, groups_of
from r1lab.run import Run
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.sources.templates import apply_template
from r1lab.world.puzzles import parse_attempts

EXPLORERS = Path(__file__).with_name("explorers")
FRAME = Environment(autoescape=True, loader=PackageLoader("r1lab.lab", "")).get_template("frame.html")


def explorer(name: str, still: str = "", **data) -> None:
    """Display an explorer: advantages, clip, interval, kl, tree or vote. `data` replaces its numbers.

    Where no script may run (GitHub, a notebook that is not trusted) it shows its still picture, or the
    HTML `still` in its place, and says so. Raises InputError where there is no such explorer.
    """
    alone = page(name, **data)
    svg = (EXPLORERS / f"{name}.svg").read_text("utf-8")
    words = re.findall("<(?:title|desc)>(.*?)</", svg)
    alt = html.unescape(". ".join(words))
    picture = base64.b64encode(svg.encode()).decode("ascii")
    shown = FRAME.render(alt=alt, picture=picture, still=still, page=alone)
    display({"text/html": shown, "text/plain": f"Explorer: {alt}"}, raw=True)


def page(name: str, **data) -> str:
    """Return the explorer as a page that needs no other file. Raises InputError where there is none."""
    names = sorted(path.stem for path in EXPLORERS.glob("*.html"))
    if name not in names:
        raise InputError(f"There is no explorer {name!r}; choose one of {', '.join(names)}.")
    files = [EXPLORERS / file for file in (f"{name}.html", "kit.css", "kit.js")]
    text, style, script = (path.read_text("utf-8") for path in files)
    given = json.dumps(data).replace("<", "\\u003c")  # no text of the data may end the script
    text = text.replace('<link rel="stylesheet" href="kit.css">', f"<style>{style}</style>")
    start = f"<script>window.given = {given};\n{script}</script>"
    return text.replace('<script src="kit.js"></script>', start)


def rollouts(run: str | Path, most: int = 12) -> None:
    """Display a stored run's groups: a slider over its steps, a strip an answer, each opens at a click.

    Args:
        most: groups to show, one of a rollout, evenly over the run.
    Raises:
        InputError: the folder holds no group of answers.
    """
    stored = Run(run)
    attempts, groups = attempts_of(stored), [groups[0] for groups in groups_of(stored.samples)]
    if not groups:
        raise InputError(f"{run} holds no group of answers: the run stored no samples of its training.")
    shown = []
    for rows in groups[:: -(-len(groups) // most)]:
        answers = Answers(rows[0]["prompt"], [answer_of(row, attempts) for row in rows])
        earned = [sum(value or 0.0 for value in row["rewards"].values()) for row in rows]
        shown.append({"step": rows[0]["step"], "html": answers.__html__(), "earned": earned})
    style = SHOWN.style()
    explorer("rollouts", still=style + shown[-1]["html"], style=style, groups=shown)


def ask(model: str | Path, template: str = "small", max_tokens: int = 448) -> VBox:
    """Make a box in which to ask a model a question of one's own; its answer appears below.

    Args:
        template: how the model is asked, a name of `sources.templates`: "chat" for a chat model.
    """
    policy, tokenizer = load_policy(model)
    sampler, params = TorchSampler(policy.model, tokenizer), SamplingParams(max_tokens=max_tokens, seed=0)
    question = Text(description="question", placeholder="make 13 from 9,5,1", continuous_update=False)
    shown = HTML("Type a question and press Enter.")

    def reply(change: dict) -> None:
        prompt = apply_template(template, change["new"], tokenizer)
        drawn = sampler.generate([tokenizer(prompt).input_ids], params)
        [text] = drawn.texts(tokenizer)
        shown.value = Answer(text, parse_attempts(text), finish=drawn.finish[0])._repr_html_()

    question.observe(reply, "value")
    return VBox([question, shown])
