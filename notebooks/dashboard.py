"""The dashboard: curves of a run, and an answer token by token; `lab.rollouts` shows its groups.

Training goes on in a thread and writes an ordinary run folder. The dashboard shows what that folder
holds, and nothing else, so that after a restart of the kernel `show_run` shows the same. Numbers of
tokens are not stored with a run: the stored text is scored with two policies, a later one and the
reference it came from.
"""

import html
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from ipywidgets import HTML, Button, HBox, IntSlider, VBox
from jinja2 import Environment, FileSystemLoader

from r1lab.errors import InputError
from r1lab.models.policy import Policy, load_policy
from r1lab.objective import k3, policy_loss
from r1lab.report.answers import glossed
from r1lab.report.figures import OKABE_ITO, draw
from r1lab.report.pages import embedded
from r1lab.run import Run
from r1lab.sources.templates import apply_template
from r1lab.task import Task, source_of
from r1lab.training.batching import pad_rows
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.processes import StopRequest
from r1lab.training.rl import described, rl_work

DRAWING = threading.Lock()  # matplotlib's settings are global, and callbacks run in threads
PERIOD = 2.0  # seconds from one drawing to the next
PAGES = Environment(autoescape=True, loader=FileSystemLoader(Path(__file__).parent))
SHOWN = PAGES.get_template("dashboard.html").module  # its macros
CURVES = ("accuracy", "reward_parts", "length", "entropy", "drift")  # of report's figures


class RunView(VBox):
    """What a run's folder holds: its curves, and the tokens of one of its answers.

    The tokens are scored by `models`, folders of a policy and of its reference.
    """

    def __init__(self, run: str | Path, models: Sequence[str | Path] = (), controls: Sequence[Button] = ()):
        self.run, self.words = Run(run), ""
        self.models = [load_policy(model) for model in models]
        self.status, self.curves, self.text = HTML(), HTML(), HTML()
        self.answer = IntSlider(1, min=1, max=2, description="answer")
        self.answer.observe(lambda _: self.show_answer(), "value")
        inspector = [self.answer, self.text] if models else []
        super().__init__([HBox([*controls, self.status]), self.curves, *inspector])

    def say(self, text: str):
        self.status.value = f'<span role="status">{html.escape(text)}</span>'

    def refresh(self):
        """Read the folder again and draw it. Raises InputError where it holds no run."""
        rows, samples = self.run.measured, self.run.samples
        with DRAWING:
            figures = [draw(name, rows, self.run.config) for name in CURVES]
            titled = [(one, one.axes[0].get_title(loc="left")) for one in figures if one]
            self.curves.value = SHOWN.curves([embedded(*one) for one in titled])
        self.words = f"Step {rows[-1]['step']}: {'. '.join(title for _, title in titled)}."
        self.say(self.words)
        self.answer.max = self.answer.value = max(2, len(samples))
        self.show_answer()

    def show_answer(self):
        """Score and colour the answer that the slider is at, if there are models and answers."""
        samples, config = self.run.samples, self.run.config
        if not self.models or not samples:
            return
        row = samples[min(self.answer.value, len(samples)) - 1]
        [(policy, tokenizer), (reference, _)] = self.models
        template = config.get("task", {}).get("settings", config).get("template", "small")
        prompt = apply_template(template, row["prompt"], tokenizer)
        ended = row.get("finish") == "stop"
        scores = score_tokens(policy, reference, tokenizer, prompt, row["completion"], ended=ended)
        asked = html.escape("".join(text for _, text in glossed(row["prompt"])))
        self.text.value = f"<p>Step {row['step']}: {asked}</p>{tokens_html(scores)}"


class Dashboard(RunView):
    """Trains a model on a task in the folder `run`, in a thread of this kernel, with Start and Stop.

    Stop is obeyed at the end of the rollout in hand, which is saved. Start goes on from there, as
    `r1lab zero --resume` does.
    """

    def __init__(self, model: str | Path, task: Task, config: GRPOConfig, run: str | Path):
        config.check(1)
        way = {"objective": source_of(policy_loss), "learner": source_of(Learner)}  # as `grpo` stores it
        about = {"model": str(model), "task": described(task), **way}
        Run(run).prepare(config, about, resume=True)
        self.given = (Run(run), str(model), task, config)
        self.start = Button(description="Start", tooltip="Train, from the last checkpoint on")
        self.stop = Button(description="Stop", tooltip="End after this rollout", disabled=True)
        self.start.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self.end())
        super().__init__(run, controls=(self.start, self.stop))
        self.say("Press Start.")
        self.draw()

    def begin(self):
        self.start.disabled, self.stop.disabled = True, False
        self.say("Loading the model, and asking it the test problems ...")
        self.request = StopRequest()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def end(self):
        self.say("Stopping after this rollout ...")
        self.stop.disabled = True
        self.request.set()

    def draw(self):
        """Show the folder as it is; what is shown stays where it holds nothing new to read yet."""
        with suppress(InputError):  # no line yet, or one that is half written
            self.refresh()

    def _follow(self):
        """Train in another thread, and draw meanwhile."""
        trainer = threading.Thread(target=self._train, daemon=True)
        trainer.start()
        while trainer.is_alive():
            trainer.join(PERIOD)
            if not self.request.is_set():
                self.draw()
        self.draw()
        self.say(f"{self.ended}. {self.words}")
        self.start.disabled, self.stop.disabled = False, True

    def _train(self):
        try:
            done = rl_work(World(), self.request, *self.given)
            self.ended = "All rollouts are done" if done else "Stopped"
        except InputError as error:
            self.ended = str(error).rstrip(".")
        except Exception as error:  # a thread has nobody else who hears of it
            self.ended = f"The run broke off: {error!r}"
            raise


@contextmanager
def one_sentence() -> Iterator[None]:
    """Within: what is wrong with an input is printed as its sentence, without a traceback."""
    try:
        yield
    except InputError as error:
        print(error)


train_live = one_sentence()(Dashboard)  # None where there is nothing to train


@one_sentence()
def show_run(run: str | Path, *models: str | Path) -> RunView | None:
    """The dashboard of a run from its folder, finished or not, with a button to read it again.

    With `models`, folders of a policy and its reference such as data/zero and data/base, it also
    shows an answer's tokens, coloured by how much more likely training made them.
    """
    again = Button(description="Refresh", tooltip="Read the folder again")
    view = RunView(run, models, (again,))
    view.refresh()

    def reread(_button):
        try:
            view.refresh()
        except InputError as error:
            view.say(str(error))

    again.on_click(reread)
    return view


class TokenScores(NamedTuple):
    """The tokens of one completion and their numbers in nats, one each; `measures` by their names."""

    tokens: list[str]
    measures: dict[str, list[float]]


def score_tokens(
    policy: Policy, reference: Policy, tokenizer, prompt: str, completion: str, *, ended: bool = True
) -> TokenScores:
    """Score a completion's tokens under two policies, at temperature 1; the prompt has its template.

    The text is tokenised again: where a tokenizer can write it in two ways, the tokens may differ
    from those sampled. The end token follows if the completion `ended`, and was not cut off.
    Raises InputError where there is nothing to score.
    """
    asked = tokenizer(prompt).input_ids
    answer = tokenizer(completion, add_special_tokens=False).input_ids
    answer += [tokenizer.eos_token_id] * ended
    if not answer:
        raise InputError("The completion is empty: there is no token to inspect.")
    batch = pad_rows([asked], [answer], 0)
    with torch.no_grad():
        now, before = (one(*batch, temperature=1.0) for one in (policy, reference))
    measures = {
        "log-prob": now.logp,
        "of reference": before.logp,
        "log ratio": now.logp - before.logp,
        "entropy": now.entropy,
        "KL": k3(now.logp, before.logp),
    }
    tokens = [tokenizer.decode([token]) for token in answer]
    return TokenScores(tokens, {name: values[0].tolist() for name, values in measures.items()})


def tokens_html(scores: TokenScores) -> str:
    """The tokens, coloured by their log ratio, and a table with every number."""
    most = max(map(abs, scores.measures["log ratio"])) or 1.0
    return SHOWN.tokens(scores.tokens, scores.measures, most, OKABE_ITO)
