"""What a model wrote, for eyes: one attempt a line, the same in notebooks, terminals and reports.

Explorers are pictures that a reader moves, drawn at once by the browser. Each is a page of its own in the
folder `explorers`: NAME.html draws, and NAME.svg is what it shows before anything has moved
(`python -m tests.tools.stills` writes it).
"""

import base64
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, groupby
from operator import itemgetter
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from rich.text import Text

from r1lab.errors import InputError, require_known
from r1lab.rewards.languages import ENGLISH, HAN
from r1lab.rewards.parsing import parse
from r1lab.run import Row, Run
from r1lab.stages.rl_stages import stored_zero
from r1lab.task import REQUIRED, Problem, problem_of

PAGES = Environment(
    autoescape=select_autoescape(), undefined=StrictUndefined, loader=PackageLoader("r1lab.report", "")
)
SHOWN = PAGES.get_template("answers.html").module  # its macros
MARKS = {"hit": "✓", "miss": "✗", "repeat": "✗ again"}
EXPLORERS = Path(__file__).with_name("explorers")
STYLES = {"hit": "green", "repeat": "yellow", "final": "bold", "tag": "cyan", "english": "dim"}  # in a terminal
FindAttempts = Callable[[Problem, str], list]


@dataclass(frozen=True)
class Answer:
    """One completion to look at.

    Attributes:
        attempts: those it makes, as `Task.attempts` reads them. Without any, its text is shown.
        rewards: what each reward paid; None where it could not say.
        log_ratio: its tokens, each with the log of its probability over the reference's.
    """

    completion: str
    attempts: Sequence = ()
    rewards: Mapping[str, float | None] = field(default_factory=dict)
    advantage: float | None = None
    finish: str | None = "stop"
    log_ratio: Sequence = ()

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
        parsed = parse(self.completion)
        silent = bool(parsed.answer and not parsed.thinking.removeprefix("<think>").strip())
        if not self.attempts and not silent:
            return glossed(self.completion)
        width = max((len(attempt.expression) for attempt in self.attempts), default=0)
        spans = [("miss", "     no thinking\n")] * silent
        for number, (attempt, kind) in enumerate(zip(self.attempts, self.kinds), 1):
            reached = f"{attempt.expression:{width}} = {attempt.totals[-1]:<4}"
            spans.append((kind, f"{number:3}  {reached} {MARKS[kind]}\n"))
        if words := " ".join(word for word in ENGLISH if word in self.completion):
            spans += glossed(f"     in Chinese: {words}\n")
        answer = f"answer: {parsed.answer}" if parsed.answer else "no answer"
        return [*spans, ("final", f"     {answer}")]

    def __rich__(self) -> Text:
        return painted([("final", f"{self.head}\n"), *self.spans, ("text", "\n")])

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
        shown = [answer.__rich__() for answer in self.best_first]
        return Text("\n").join([painted([*glossed(self.question), ("text", "\n")]), *shown])

    def __html__(self) -> str:
        return SHOWN.group(glossed(self.question), self.best_first)

    def _repr_html_(self):
        return SHOWN.style() + self.__html__()


def glossed(text: str) -> list[tuple[str, str]]:
    """Cut a text into spans at its tags, and behind what the small world says in Chinese add its English."""
    for chinese, english in ENGLISH.items():
        text = re.sub(f"(?<![{HAN}]){chinese}(?![{HAN}])", rf"\g<0>\0 {english}\0", text)
    pieces = re.split("(</?(?:think|answer)>)|\0(.*?)\0", text)
    return [span for span in zip(cycle(("text", "tag", "english")), pieces) if span[1]]


def painted(spans: Sequence[tuple[str, str]]) -> Text:
    """Make spans into text for a terminal."""
    return Text.assemble(*((text, STYLES.get(kind, "")) for kind, text in spans))


def answer_of(row: Row, attempts: FindAttempts | None = None) -> Answer:
    """Make what is shown of a row of `samples.jsonl`; `attempts` reads its attempts."""
    whole = row.keys() >= {*REQUIRED}  # of its problem
    tries = attempts(problem_of(row), row["completion"]) if attempts and whole else ()
    shown = {name: row[name] for name in row.keys() & Answer.__annotations__}
    return Answer(**shown | {"attempts": tries})


def attempts_of(run: Run) -> FindAttempts | None:
    """Find what reads the attempts of a stored run's task; None where only a notebook knows the task."""
    try:
        return stored_zero(run).open_task().attempts
    except InputError:
        return None


def browser(run: Run, most: int = 24, samples: Sequence[Row] = ()) -> tuple[str, str] | None:
    """Make what `framed` makes of a run's groups: a slider over its steps, a strip an answer, each opens
    at a click. None where there is no group.

    Args:
        most: groups to show, evenly over the run.
        samples: to show instead of those stored, such as the same with `log_ratio`.
    """
    trained = [row for row in samples or run.samples if row.get("advantage") is not None]
    groups = [[*rows] for _, rows in groupby(trained, itemgetter("step", "id"))]
    if not groups:
        return None
    attempts, shown = attempts_of(run), []
    for rows in groups[:: -(-len(groups) // most)]:
        answers = Answers(rows[0]["prompt"], [answer_of(row, attempts) for row in rows])
        earned = {name: [row[name] for row in rows] for name in ("rewards", "advantage")}
        shown.append({"step": rows[0]["step"], "html": answers.__html__(), **earned})
    return framed("rollouts", shown[-1]["html"], groups=shown)


def pick_samples(samples: Sequence[Row]) -> list[list[Row]]:
    """Pick questions, from easy to hard, each with its first stored answer at every step.

    The rule looks at levels and steps only, never at who was right: the first five of those that were
    asked over the widest range of steps.
    """
    by_question: dict[str, dict[int, Row]] = {}
    for row in samples:
        by_question.setdefault(row["id"], {}).setdefault(row["step"], row)
    chosen = [[*rows.values()] for rows in by_question.values()]
    widths = [rows[-1]["step"] - rows[0]["step"] for rows in chosen]
    widest = [rows for rows, width in zip(chosen, widths) if width == max(widths)]
    return sorted(widest, key=lambda rows: rows[0]["level"])[:5]


def player(run: Run) -> str:
    """Make HTML that shows the same questions before, during and after training; "" without any."""
    attempts, questions = attempts_of(run), []
    for rows in pick_samples(run.samples):
        scenes = [(row["step"], answer_of(row, attempts).__html__()) for row in rows]
        asked = "".join(text for _, text in glossed(rows[0]["prompt"]))
        questions.append((f"Level {rows[0]['level']}: {asked}", scenes))
    return framed("player", SHOWN.stages(questions), questions=questions)[0] if questions else ""


def framed(name: str, still: str = "", **data) -> tuple[str, str]:
    """Return an explorer as HTML within a page, and its words. `data` replaces its numbers.

    Where no script may run it shows its still picture, or the HTML `still` in its place, and says so.
    """
    svg = (EXPLORERS / f"{name}.svg").read_text("utf-8")
    parts = "title" if still else "title|desc"  # the description is of the picture, which `still` replaces
    words = html.unescape(". ".join(re.findall(f"<(?:{parts})>(.*?)</", svg)))
    picture = base64.b64encode(svg.encode()).decode("ascii")
    still = still and SHOWN.style() + still
    frame = PAGES.get_template("frame.html")
    return frame.render(alt=words, picture=picture, still=still, page=page(name, **data)), words


def page(name: str, **data) -> str:
    """Return an explorer as a page that needs no other file. Raises InputError where there is none."""
    require_known(name, sorted(path.stem for path in EXPLORERS.glob("*.html")), "explorer")
    text, script = ((EXPLORERS / file).read_text("utf-8") for file in (f"{name}.html", "kit.js"))
    given = json.dumps(data).replace("<", "\\u003c")  # no text of the data may end the script
    text = text.replace('<script src="kit.js"></script>', f"<script>window.given = {given};\n{script}</script>")
    link = '<link rel="stylesheet" href="(.+)">'
    return re.sub(link, lambda match: f"<style>{(EXPLORERS / match[1]).read_text('utf-8')}</style>", text)
