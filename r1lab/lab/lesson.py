"""What lessons use: figures with words, tables, claims of the ledger, guesses, explorers."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from IPython.display import display
from ipywidgets import HTML, Text, VBox
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from r1lab.errors import InputError, require_known
from r1lab.evaluation.table import Cell, Table
from r1lab.files import read_toml
from r1lab.models.policy import load_policy
from r1lab.report.answers import Answer, browser, framed
from r1lab.report.claims import HEADER, claim_row, load_ledger, select
from r1lab.report.figures import STYLE, png_bytes
from r1lab.run import Run
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.sources.templates import apply_template
from r1lab.world.puzzles import parse_attempts

GUESSES = read_toml(__file__, "guesses")
GUESSED = Path("guesses.json")  # the learner's own, beside the notebook
FEW_POINTS = 20  # a line of no more shows each; longer ones are marked at the style's distances


def style():
    """Set the lab's look for every figure that follows; call it once, at the top of a notebook."""
    matplotlib.rcParams.update(STYLE)


def show(figure: Figure, *, alt: str, caption: str | None = None):
    """Display a figure with its alternative text, print one line under it, and close it.

    The text goes into the output's metadata, where converters find it, and into its plain-text
    form, which terminals show and strict nbval compares. JupyterLab reads out neither, therefore
    the printed line: the caption, or without one the text itself.

    Args:
        figure: made by pyplot or not.
        alt: what a reader who cannot see the figure has to know.
        caption: one line on what to see.
    Raises:
        InputError: no `alt`, a panel without labels on both axes, or no title.
    """
    alt = " ".join(alt.split())
    if not alt:
        raise InputError("show() needs `alt`: what the figure says to one who cannot see it.")
    _require_words(figure)
    for ax in figure.axes:
        for line in ax.lines:
            if len(line.get_xdata(orig=False)) <= FEW_POINTS:
                line.set_markevery(1)
    png = base64.b64encode(png_bytes(figure)).decode("ascii")
    width = round(100 * figure.get_figwidth())  # on screen; the image has more pixels than that
    display(
        {"image/png": png, "text/plain": f"Figure: {alt}"},
        metadata={"image/png": {"alt": alt, "width": width}}, raw=True
    )  # fmt: skip
    pyplot.close(figure)
    print("Figure:", *(caption or alt).split())


def _require_words(figure):
    """Panels that share an axis may leave its label to one; without axes none is needed, and a
    colour bar has one axis only."""
    titles = figure.get_suptitle()
    for ax in figure.axes:
        titles += ax.get_title() + ax.get_title(loc="left") + ax.get_title(loc="right")
        x = any(map(Axes.get_xlabel, ax.get_shared_x_axes().get_siblings(ax)))
        y = any(map(Axes.get_ylabel, ax.get_shared_y_axes().get_siblings(ax)))
        if ax.axison and ax.get_label() != "<colorbar>" and not (x and y):
            raise InputError("Label both axes of every panel, with units, before showing a figure.")
    if not titles:
        raise InputError("Give the figure a title that says what it shows.")


def table(rows: list[dict], caption: str = "", form: str = "{}", best: Sequence[str] = ()):
    """Display a table: in a notebook with its numbers to the right, elsewhere in Markdown.

    Args:
        rows: of each row the cells by column, the first of which names it. A cell is a number, a text,
            or a `Cell` with an interval.
        caption: what the table shows, in a few words.
        form: how a number is written, such as "{:.0%}".
        best: the columns whose largest number is bold.
    """
    top = {column: max(row[column] for row in rows) for column in best}
    cells = [[_cell(value, form, top.get(column)) for column, value in row.items()] for row in rows]
    display(Table(list(rows[0]), cells, caption=caption))


def _cell(value, form, top):
    return value if isinstance(value, str | Cell) else Cell(form.format(value), best=value == top)


def ledger(*names: str):
    """Display what three seeds say of claims: expected, effect with its 95 % interval, each seed.

    Args:
        names: ids of claims, or of an experiment for all of its claims.
    Raises:
        InputError: there is no such claim.
    """
    claims = load_ledger()["claims"]
    chosen = (claim for name in names for claim in select(claims, name).values())
    rows = [(row[0], *row[3:]) for row in map(claim_row, chosen)]
    display(Table((HEADER[0], *HEADER[3:]), rows))


def predict(question: str, guess: int | float | str | None):
    """Show a guess beside the answer to a *Predict first* question, and the score so far.

    The first guess at a question counts. The score is in the file `guesses.json` beside the notebook, for
    the learner alone. Without a guess, says how to give one.

    Args:
        question: as in `guesses.toml`.
        guess: a number, or one of the question's choices.
    Raises:
        InputError: there is no such question, or the guess cannot be an answer to it.
    """
    require_known(question, GUESSES, "question")
    answer, choices = GUESSES[question]["answer"], GUESSES[question].get("among", [])
    wanted = f"one of {', '.join(map(repr, choices))}" if choices else "a number"
    if guess is None:
        print(f"Your guess? Put {wanted} in place of None, and run the cell.")
        return
    if guess not in choices if choices else not isinstance(guess, int | float):
        raise InputError(f"{guess!r} is no guess at {question[3:]}; give {wanted}.")
    right = guess == answer if choices else abs(guess - answer) <= GUESSES[question]["within"]
    score = json.loads(GUESSED.read_text("utf-8")) if GUESSED.is_file() else {}
    score.setdefault(question, right)
    try:
        GUESSED.write_text(json.dumps(score), "utf-8")
    except OSError:
        print("Nothing can be written to this folder, so your score is not saved.")
    print(f"You: {guess}. The answer: {answer}. You have guessed {sum(score.values())} of {len(score)} right.")


def explorer(name: str, **data):
    """Display an explorer: advantages, clip, interval, kl, tree or vote. `data` replaces its numbers.

    Where no script may run (GitHub, a notebook that is not trusted) it shows its still picture, and says
    so. Raises InputError where there is no such explorer.
    """
    _display(*framed(name, **data))


def rollouts(run: str | Path, most: int = 12, samples: Sequence[dict] = ()):
    """Display a stored run's groups, as `report.answers.browser` makes them.

    Raises InputError where there is none.
    """
    if not (shown := browser(Run(run), most, samples)):
        raise InputError(f"{run} holds no group of answers: the run stored no samples of its training.")
    _display(*shown)


def _display(shown, words):
    display({"text/html": shown, "text/plain": f"Explorer: {words}"}, raw=True)


def ask(model: str | Path, template: str = "small", max_tokens: int = 448) -> VBox:
    """Make a box in which to ask a model a question of one's own; its answer appears below.

    Args:
        template: how the model is asked, a name of `sources.templates`: "chat" for a chat model.
    """
    policy, tokenizer = load_policy(model)
    sampler, params = TorchSampler(policy.model, tokenizer), SamplingParams(max_tokens=max_tokens, seed=0)
    question = Text(description="question", placeholder="make 13 from 9,5,1", continuous_update=False)
    shown = HTML("Type a question and press Enter.")

    def reply(change):
        prompt = apply_template(template, change["new"], tokenizer)
        drawn = sampler.generate([tokenizer(prompt).input_ids], params)
        [text] = drawn.texts(tokenizer)
        shown.value = Answer(text, parse_attempts(text), finish=drawn.finish[0])._repr_html_()

    question.observe(reply, "value")
    return VBox([question, shown])
