"""What a model wrote, for eyes: one attempt a line, the same in notebooks, terminals and reports."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from rich.text import Text

from r1lab.errors import InputError
from r1lab.rewards.parsing import parse
from r1lab.run import Row, Run
from r1lab.stages.rl_stages import stored_zero
from r1lab.task import REQUIRED, Problem, problem_of

PAGES = Environment(
    autoescape=select_autoescape(), undefined=StrictUndefined, loader=PackageLoader("r1lab.report", "")
)
SHOWN = PAGES.get_template("answers.html").module  # its macros
MARKS = {"hit": "✓", "miss": "✗", "repeat": "✗ again"}
STYLES = {"hit": "green", "repeat": "yellow", "final": "bold", "tag": "cyan"}  # in a terminal
FindAttempts = Callable[[Problem, str], list]


@dataclass(frozen=True)
class Answer:
    """One completion to look at.

    Attributes:
        attempts: those it makes, as `Task.attempts` reads them. Without any, its text is shown.
        rewards: what each reward paid; None where it could not say.
    """

    completion: str
    attempts: Sequence = ()
    rewards: Mapping[str, float | None] = field(default_factory=dict)
    advantage: float | None = None
    finish: str | None = "stop"

    @property
    def kinds(self) -> list[str]:
        """Tell of each attempt whether it hits the target, misses it, or repeats an earlier one."""
        seen, kinds = set(), []
        for attempt in self.attempts:
            reached = "hit" if attempt.totals[-1] == attempt.stated_target else "miss"
            kinds.append("repeat" if attempt.key in seen else reached)
            seen.add(attempt.key)
        return kinds

    @property
    def head(self) -> str:
        parts = [] if self.advantage is None else [f"advantage {self.advantage:+.2f}"]
        for name, value in self.rewards.items():
            parts.append(f"{name} –" if value is None else f"{name} {value:g}")
        return "  ".join(parts + ["cut off at the cap"] * (self.finish == "length"))

    @property
    def spans(self) -> list[tuple[str, str]]:
        """Cut what is shown into pieces of one look each: (its kind, text)."""
        if not self.attempts:
            pieces = re.split("(</?(?:think|answer)>)", self.completion)
            return [("tag" if place % 2 else "text", piece) for place, piece in enumerate(pieces)]
        width = max(len(attempt.expression) for attempt in self.attempts)
        spans = []
        for number, (attempt, kind) in enumerate(zip(self.attempts, self.kinds), 1):
            reached = f"{attempt.expression:{width}} = {attempt.totals[-1]:<4}"
            spans.append((kind, f"{number:3}  {reached} {MARKS[kind]}\n"))
        answer = parse(self.completion).answer
        return [*spans, ("final", f"     answer: {answer}" if answer else "     no answer")]

    def __rich__(self) -> Text:
        shown = Text().append(f"{self.head}\n", style="bold")
        for kind, text in self.spans:
            shown.append(text, style=STYLES.get(kind))
        return shown.append("\n")

    def __html__(self) -> str:
        return SHOWN.answer(self)

    def _repr_html_(self):
        return SHOWN.style() + SHOWN.answer(self)


@dataclass(frozen=True)
class Answers:
    """The answers to one question: each a strip of squares, and a bar for its advantage."""

    question: str
    answers: Sequence[Answer]

    @property
    def best_first(self) -> list[Answer]:
        return sorted(self.answers, key=lambda answer: -(answer.advantage or 0.0))

    def __rich__(self) -> Text:
        shown = Text(f"{self.question}\n")
        for answer in self.best_first:
            shown.append("\n").append_text(answer.__rich__())
        return shown

    def __html__(self) -> str:
        return SHOWN.group(self.question, self.best_first)

    def _repr_html_(self):
        return SHOWN.style() + self.__html__()


def answer_of(row: Row, attempts: FindAttempts | None = None) -> Answer:
    """Make what is shown of a row of `samples.jsonl`; `attempts` reads its attempts."""
    whole = row.keys() >= {*REQUIRED}  # of its problem
    tries = attempts(problem_of(row), row["completion"]) if attempts and whole else ()
    return Answer(
        row["completion"], tries, row.get("rewards", {}), row.get("advantage"), row.get("finish")
    )


def attempts_of(run: Run) -> FindAttempts | None:
    """Find what reads the attempts of a stored run's task; None where only a notebook knows the task."""
    try:
        return stored_zero(run).open_task().attempts
    except InputError:
        return None
