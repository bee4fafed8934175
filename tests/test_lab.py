"""What notebooks import: figures that carry words, in one style."""

import matplotlib
import pytest
from matplotlib import pyplot
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.lab import lesson, show, style


@pytest.fixture
def shown(monkeypatch):
    """What `show` hands to the notebook."""
    outputs = []
    monkeypatch.setattr(lesson, "display", lambda data, **how: outputs.append((data, how)))
    return outputs


def chart(rows=1, **subplots):
    figure = Figure(figsize=(4, 3))
    panels = figure.subplots(rows, 1, squeeze=False, **subplots)[:, 0]
    panels[0].set_title("Accuracy rises")
    for ax in panels:
        ax.plot([0, 1], [0.2, 0.6])
        ax.set_xlabel("steps")
        ax.set_ylabel("accuracy (%)")
    return figure


@pytest.mark.parametrize(
    ("caption", "printed"),
    [("Look at the slope.", "Look at the slope."), (None, "Accuracy rises from 20 to 60 %.")],
)
def test_show_stores_the_alternative_text_and_prints_one_line(shown, capsys, caption, printed):
    show(chart(), alt="Accuracy rises from\n20 to 60 %.", caption=caption)
    [(data, how)] = shown
    assert set(data) == {"image/png", "text/plain"} and how["raw"] is True
    assert data["image/png"].startswith("iVBORw0KGgo")  # a PNG, in base64
    assert data["text/plain"] == "Figure: Accuracy rises from 20 to 60 %."
    assert how["metadata"]["image/png"] == {"alt": "Accuracy rises from 20 to 60 %.", "width": 400}
    assert capsys.readouterr().out == f"Figure: {printed}\n"


def test_a_short_line_shows_each_of_its_points_and_a_long_one_does_not(shown):
    style()
    figure = chart()
    [ax] = figure.axes
    ax.plot([0.5], [0.4])  # one point has no length along which the style could space markers
    ax.errorbar([0.2], [0.3], yerr=[0.1], fmt="o")
    ax.plot(range(100), range(100))
    spaced = ax.lines[-1].get_markevery()
    show(figure, alt="Accuracy rises.")
    few = [line.get_markevery() for line in ax.lines if len(line.get_xdata()) < 100]
    assert len(few) >= 3 and set(few) == {1}
    assert ax.lines[-1].get_markevery() == spaced != 1


def test_a_colour_bar_needs_one_label_only(shown):
    figure = chart()
    figure.colorbar(ScalarMappable(), ax=figure.axes[0], label="value")
    show(figure, alt="Accuracy rises.")
    assert shown


def test_show_closes_a_figure_of_pyplot(shown):
    figure, ax = pyplot.subplots()
    ax.set(title="Nothing yet", xlabel="steps", ylabel="accuracy (%)")
    number = figure.number
    show(figure, alt="An empty chart.")
    assert not pyplot.fignum_exists(number)


@pytest.mark.parametrize(("spoil", "alt", "words"), [
    (lambda figure: figure.axes[0].set_xlabel(""), "Rises.", "Label both axes"),
    (lambda figure: figure.axes[1].set_ylabel(""), "Rises.", "Label both axes"),
    (lambda figure: figure.axes[0].set_title(""), "Rises.", "title"),
    (lambda figure: None, "", "alt"),
    (lambda figure: None, " \n", "alt"),
])  # fmt: skip
def test_show_refuses_a_figure_that_does_not_explain_itself(shown, spoil, alt, words):
    figure = chart(rows=2)
    spoil(figure)
    with pytest.raises(InputError, match=words):
        show(figure, alt=alt)
    assert not shown


def test_a_shared_axis_is_labelled_once_and_a_picture_needs_no_axes(shown):
    shared = chart(rows=2, sharex=True)
    shared.axes[0].set_xlabel("")
    show(shared, alt="Two panels over the same steps.")
    picture = Figure()
    ax = picture.subplots()
    ax.set_title("A map of the rooms", loc="left")
    ax.axis("off")
    show(picture, alt="A map of the rooms.")
    assert len(shown) == 2


def test_style_is_opaque_and_tells_series_apart_without_colour():
    with matplotlib.rc_context():
        style()
        assert matplotlib.rcParams["figure.facecolor"] == "white"
        looks = list(matplotlib.rcParams["axes.prop_cycle"])
    for feature in ("color", "marker"):
        assert len({str(look[feature]) for look in looks}) == len(looks) == 7
    assert len({str(look["linestyle"]) for look in looks}) == 6


def test_a_guess_is_shown_beside_the_answer_and_the_first_one_counts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = []
    for question, guess in [
        ("01 the exact ratio", None), ("01 the mean reward", None), ("01 the mean reward", 0.23),
        ("01 the mean reward", 0.5), ("01 the exact ratio", "token"),
    ]:  # fmt: skip
        lesson.predict(question, guess)
        said.append(capsys.readouterr().out)
    assert "'whole', 'token', 'geometric' in place of None" in said[0] and "a number" in said[1]
    assert "You: 0.23. The answer: 0.2222. You have guessed 1 of 1 right." in said[2]
    assert "1 of 1 right" in said[3] and "1 of 2 right" in said[4]


def test_a_guess_where_nothing_can_be_written_is_answered_all_the_same(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(lesson, "GUESSED", tmp_path / "file" / "guesses.json")
    lesson.predict("01 the mean reward", 0.23)
    refused, shown = capsys.readouterr().out.splitlines()
    assert "your score is not saved" in refused and shown.startswith("You: 0.23. The answer: 0.2222.")


@pytest.mark.parametrize(("question", "guess", "words"), [
    ("01 no such question", 1, "there is no question"),
    ("01 the exact ratio", "none", "'none' is no guess at the exact ratio; give one of 'whole'"),
    ("01 the mean reward", "0.2", "'0.2' is no guess at the mean reward; give a number"),
])  # fmt: skip
def test_a_guess_that_cannot_be_an_answer_is_refused_in_a_sentence(question, guess, words):
    with pytest.raises(InputError, match=words):
        lesson.predict(question, guess)
