"""The report: figures say what the numbers say, and the page is whole, safe and honest."""

import doctest
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations, pairwise
from random import Random

import matplotlib
import pytest
from tests.fake_run import fake_run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from r1lab.errors import InputError
from r1lab.files import SHIPPED, read_rows
from r1lab.report import answers, figures, pages
from r1lab.run import Run
from r1lab.world import FAMILIES, find_attempts
from r1lab.world.words import SAYINGS

DRAWN = list(figures.CAPTIONS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(fake_run(tmp_path_factory.mktemp("runs") / "zero"))


@pytest.fixture
def unpainted(monkeypatch):
    """Figures are drawn but not painted, which is most of the time that a page takes."""
    monkeypatch.setattr(pages, "png_bytes", lambda figure: b"PNG")


def lines_of(figure, panel=0):
    return {line.get_label(): line for line in figures.named_lines(figure.axes[panel])}


def evals(*values, margin=0.03):
    rows = [{"kind": "eval", "step": 40 * i, "pass_at_1": value} for i, value in enumerate(values)]
    return [
        row | ({"pass_at_1_ci95": [row["pass_at_1"] - margin, row["pass_at_1"] + margin]} if margin else {})
        for row in rows
    ]


# Figures


@pytest.mark.parametrize("steps", [12, 240])
@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_labelled_and_no_words_collide(tmp_path, name, steps):
    run = Run(fake_run(tmp_path / "run", steps=steps))
    figure = figures.draw(name, run.metrics, run.config)
    figure.dpi = figures.STYLE["savefig.dpi"]  # so that extents are those of the image
    image = Image.open(io.BytesIO(figures.png_bytes(figure))).convert("RGBA")
    assert image.size[0] >= 900 and image.getextrema()[3] == (255, 255), "small, or transparent"
    assert figure.axes[0].get_title(loc="left")
    assert figure.axes[-1].get_xlabel().startswith("policy updates (steps)")
    inside = figure.bbox.padded(1)
    for ax in figure.axes:
        assert re.search(r"\(.+\)|per answer", ax.get_ylabel()), "no unit"
        boxes = [text.get_window_extent() for text in [*ax.texts, ax._left_title, ax.yaxis.label]]
        assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)
        assert all(inside.y0 <= box.y0 and box.y1 <= inside.y1 for box in boxes)
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_accuracy_draws_the_rows_and_marks_what_changed(run):
    figure = figures.draw("accuracy", run.metrics, run.config)
    lines = lines_of(figure)
    rows = [row for row in run.metrics if row["kind"] == "eval"]
    assert list(lines["pass@1"].get_ydata()) == [100 * row["pass_at_1"] for row in rows]
    assert list(lines["cons@16"].get_xdata()) == [row["step"] for row in rows]
    assert lines["pass@1"].get_color() != lines["cons@16"].get_color()
    assert lines["pass@1"].get_marker() != lines["cons@16"].get_marker()
    notes = {text.get_text(): text.xy[0] for text in figure.axes[0].texts}
    assert notes["cap 256"] == 120
    assert "reference refreshed" in figure.axes[0].get_xlabel()
    assert [80, 160, 240] in [list(line.get_xdata()) for line in figure.axes[0].get_lines()]


def test_what_has_not_happened_yet_is_not_marked_and_a_negative_reward_stays_in_sight(run):
    config = {"caps": [[0, 160], [300, 256]], "reference_every": 250}
    ax = figures.draw("accuracy", run.metrics, config).axes[0]
    assert sorted(text.get_text() for text in ax.texts) == ["cons@16", "pass@1"]
    assert "refreshed" not in ax.get_xlabel()
    rows = [row | {"reward": -0.5} for row in run.metrics]
    assert figures.draw("reward_parts", rows).axes[0].get_ylim()[0] <= -0.5


def test_the_vote_that_most_evaluations_took_is_drawn_under_its_name(run):
    rows = [row | {"cons_at_4": 0.5} if row["step"] else row for row in run.metrics if "cons_at_16" in row]
    for row in rows[1:-1]:
        del row["cons_at_16"]
    assert set(lines_of(figures.draw("accuracy", rows))) == {"pass@1", "cons@4"}


def test_levels_and_parts_of_the_reward_have_a_line_each(run):
    lines = lines_of(figures.draw("accuracy_by_level", run.metrics))
    assert list(lines) == [f"level {i}" for i in range(1, 6)]
    last = run.evaluation("final")["by_level"]["5"]["pass_at_1"]
    assert lines["level 5"].get_ydata()[-1] == pytest.approx(100 * last)
    rows = [row | {"reward/language": 0.5} for row in run.metrics]
    lines = lines_of(figures.draw("reward_parts", rows))
    assert set(lines) == {"accuracy", "format", "language", "total"}
    assert set(lines["language"].get_ydata()) == {0.5}


@pytest.mark.parametrize(("rows", "title"), [
    (evals(0.2, 0.6), "Pass@1 rises from 20.0 % to 60.0 % in 40 steps"),
    (evals(0.6, 0.3, 0.2), "Pass@1 falls from 60.0 % to 20.0 % in 80 steps"),
    (evals(0.2, 0.6, 0.22), "Pass@1: 20.0 % to 22.0 %, intervals overlap"),
    (evals(0.2, 0.6, margin=None), "Pass@1: from 20.0 % to 60.0 % in 40 steps"),
    (evals(0.2), "Pass@1: 20.0 % at step 0"),
    ([], "Pass@1"),
])  # fmt: skip
def test_a_title_claims_no_more_than_the_intervals_allow(rows, title):
    assert figures.finding(rows, "eval/pass_at_1").replace("\N{NO-BREAK SPACE}", " ") == title


def test_a_missing_value_is_a_gap_not_a_zero():
    rows = [{"kind": "eval", "step": i, "in_order": v} for i, v in enumerate((None, 0.5))]
    assert figures.points(rows, "eval/in_order") == ([1], [0.5])


@given(st.lists(st.floats(-100, 100), max_size=90))
def test_a_running_mean_stays_within_the_values(values):
    smoothed = figures.smooth(values)
    assert len(smoothed) == len(values)
    assert all(min(values) - 1e-9 <= v <= max(values) + 1e-9 for v in smoothed)
    if len(values) < 40:
        assert smoothed == pytest.approx(values)


@given(st.lists(st.floats(0, 100), max_size=8).map(sorted), st.floats(0.5, 20))
def test_labels_are_spread_apart_and_moved_no_more_than_needed(values, gap):
    assert figures.spread([0.0, 0.0, 10.0], 2.0) == [-1.0, 1.0, 10.0]
    placed = figures.spread(values, gap)
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(placed))
    assert sum(placed) == pytest.approx(sum(values), abs=1e-6)
    if all(b - a >= gap for a, b in pairwise(values)):
        assert placed == pytest.approx(values)


def test_lines_that_meet_at_the_end_are_named_in_the_order_they_came_in():
    figure, (ax,) = figures.panels()
    for name, values in {"from above": [0.9, 1.0], "lowest": [0.0, 0.5], "from below": [0.1, 1.0]}.items():
        ax.plot(range(2), values, label=name)
    figures.label_ends(ax)
    placed = sorted(ax.texts, key=lambda text: text.xy[1])
    assert [text.get_text() for text in placed] == ["lowest", "from below", "from above"]


def test_alternative_text_holds_the_title_and_the_ends(run):
    text = figures.alt_text(figures.draw("accuracy", run.metrics))
    first, last = run.evaluation("base"), run.evaluation("final")
    assert text.startswith("Pass@1 rises from")
    assert f"pass@1 from {100 * first['pass_at_1']:.3g} to {100 * last['pass_at_1']:.3g}" in text


def test_drawing_leaves_the_callers_settings_alone(run):
    before = dict(matplotlib.rcParams)
    figures.png_bytes(figures.draw("entropy", run.metrics))
    assert dict(matplotlib.rcParams) == before


def test_examples_in_docstrings():
    found = doctest.testmod(pages)
    assert found.attempted and not found.failed


# The page


class Page(HTMLParser):
    """Elements with their attributes; fails on an element that is not closed in order."""

    def __init__(self, source):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(source)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open += [tag] if tag not in ("meta", "img", "br") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += [data] if self.open[-1:] not in (["style"], ["script"]) else []

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def report(folder):
    path = pages.write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_stands_alone_and_every_figure_has_words(tmp_path):
    folder = fake_run(tmp_path / "zero")
    page = report(folder)
    images = page.all("img")
    assert len(images) == len(page.all("figcaption")) == len(DRAWN)
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all(len(image["alt"]) > 20 for image in images)
    assert not page.all("link")
    assert "http" not in re.sub(r"base64,[^\"]+|http://www.w3.org/\S+", "", (folder / "report.html").read_text("utf-8"))
    assert sorted(path.stem for path in (folder / "figures").iterdir()) == sorted(DRAWN)
    assert len(page.all("h1")) == 1


def test_the_headline_compares_base_and_final(tmp_path, unpainted):
    folder = fake_run(tmp_path / "zero")
    summary = json.loads((folder / "summary.json").read_text())
    summary["base"] |= {"pass_at_1": 0.25, "pass_at_1_ci95": [0.2, 0.3], "mean_tokens": 40.0}
    summary["final"] |= {"pass_at_1": 0.75, "pass_at_1_ci95": [0.7, 0.801], "mean_tokens": 120.0}
    summary["final"]["by_level"]["5"] = {"n": 60, "pass_at_1": 0.5, "ci95": [0.4, 0.6]}
    (folder / "summary.json").write_text(json.dumps(summary))
    text = report(folder).text
    assert text.startswith("Run zero Run zero In 5.3 minutes this model went from 25 % to 75 % right on held-out problems. The same")
    assert "Pass@1 25 % 20 to 30 75 % 70 to 80 +50 points" in text
    assert "Tokens per answer 40 120 × 3.0" in text
    assert re.search(r"Level 5 60 problems .* 50 % 40 to 60 \+", text)
    for fact in (
        "r1lab zero --preset cpu --seed 0", "Example CPU 3000", "7 min 11 s", "2.3 GB",
        '"clip_high": 0.28', '"torch": "2.13.0"', "Reward: true. Seed: 0.",
    ):  # fmt: skip
        assert fact in text, fact
    assert "not finished" not in text and "Not drawn" not in text


def test_an_unfinished_run_says_so(tmp_path, unpainted):
    text = report(fake_run(tmp_path / "half", finished=False)).text
    assert "This run is not finished. It has reached step 80" in text
    assert "Latest" in text and "Final" not in text and "not recorded" in text


def test_a_run_with_only_its_first_evaluation_shows_it_once(tmp_path, unpainted):
    folder = fake_run(tmp_path / "start", finished=False)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text(lines[0] + "\n")
    (folder / "samples.jsonl").unlink()
    text = report(folder).text
    assert re.search(r"Pass@1 \d+ % \d+ to \d+ – –", text)
    missing = "length, reward parts, entropy, drift"
    assert f"Not drawn, because the metrics lack it: {missing}." in text
    assert "This run stored no answers" in text and "stored no group of answers" in text
    assert "went from" not in text


def test_what_a_model_writes_is_shown_and_never_obeyed(tmp_path, unpainted):
    folder = fake_run(tmp_path / "zero")
    rows = read_rows(folder / "samples.jsonl")
    attack = "</pre><script>alert(1)</script>\x00\x1b[31m <answer>\ud800 & \"'{{ 7 * 7 }}"
    for row in rows:
        row |= {"completion": attack, "prompt": '"><img src=http://x>', "rewards": {"<b>": 1.0}}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "samples.jsonl").write_text(text)
    page = report(folder)
    frames = page.all("iframe")
    assert len(page.all("script")) == len(frames) == 2  # what shows the frames, and nothing else
    assert all(frame["sandbox"] == "allow-scripts" for frame in frames)
    assert all("<script>alert" not in frame["srcdoc"] and "<img" not in frame["srcdoc"] for frame in frames)
    assert len(page.all("img")) == len(DRAWN)
    assert "<script>alert(1)</script>" + 2 * "\N{REPLACEMENT CHARACTER}" + "[31m" in page.text
    assert '"><img src=http://x>' in page.text and "{{ 7 * 7 }}" in page.text


def test_samples_are_chosen_by_level_and_step_alone():
    def row(id_, level, step, text="first"):
        return {"id": id_, "level": level, "step": step, "completion": text}

    rows = [row("once", 9, 0), row("short", 9, 0), row("short", 9, 40)]
    rows += [row(f"q{i}", i, step) for step in (0, 40, 120, 160) for i in range(1, 6)]
    rows += [row("q1", 1, 0, text="second")]
    chosen = answers.pick_samples(rows)
    assert [[row["id"] for row in rows] for rows in chosen] == [[f"q{i}"] * 4 for i in range(1, 6)]
    assert all([row["step"] for row in rows] == [0, 40, 120, 160] for rows in chosen)
    assert chosen[0][0]["completion"] == "first"
    assert answers.pick_samples([]) == []


def test_a_step_written_twice_counts_once_and_a_line_cut_while_written_not_at_all(tmp_path):
    rows = [{"kind": "train", "step": s, "kl": k} for s, k in ((1, 0.1), (2, 0.2), (2, 0.3))]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "tra')
    assert [row["kl"] for row in Run(tmp_path).metrics] == [0.1, 0.3]


@pytest.mark.parametrize(("name", "content", "words"), [
    ("metrics.jsonl", None, "not a run folder"),
    ("metrics.jsonl", "", "no metrics yet"),
    ("metrics.jsonl", "{}{\n{}\n", "line 1: cannot be read"),
    ("metrics.jsonl", '{"kind": "eval", "step": 0}\n[1]\n', "line 2"),
    ("metrics.jsonl", '{"kind": "eval"}\n', "line 1: .*step"),
    ("samples.jsonl", '{"id": "a"}\n', "line 1: .*completion"),
    ("config.json", "{", "config.json is damaged"),
    ("summary.json", "[]", "summary.json is damaged"),
])  # fmt: skip
def test_a_broken_run_is_refused_in_one_sentence(tmp_path, name, content, words):
    folder = fake_run(tmp_path / "zero", steps=12)
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(InputError, match=words) as refusal:
        pages.write_report(folder)
    assert "\n" not in str(refusal.value) and not (folder / "report.html").exists()


# What a model wrote

SEARCHED = "<think> 9+5=14+1=15:13 no wait 9+5=14+1=15:13 no 9+5=14-1=13:13 ok </think> <answer> 9+5-1 </answer>"


def stored_answer(completion, **more):
    problem = {"id": "a", "family": "signs", "level": 2, "lang": "en", "prompt": "p", "solution": "9+5-1"}
    return problem | {"completion": completion, "rewards": {"correct": 1.0, "other": None}} | more


def test_an_answer_is_shown_one_attempt_a_line_in_terminal_and_page():
    answer = answers.answer_of(stored_answer(SEARCHED, advantage=-0.5, finish="length"), find_attempts)
    shown = answer.__rich__().plain.splitlines()
    assert shown[0] == "advantage -0.50  correct 1  other –  cut off at the cap"
    assert [line.split() for line in shown[1:]] == [
        ["1", "9+5+1", "=", "15", "✗"], ["2", "9+5+1", "=", "15", "✗", "again"],
        ["3", "9+5-1", "=", "13", "✓"], ["answer:", "9+5-1"],
    ]  # fmt: skip
    page = answers.Answers("make 13", [answer, answers.Answer("<b>", advantage=1.0)])._repr_html_()
    assert page.index("&lt;b&gt;") < page.index("9+5+1")  # the best first, and text stays text
    squares = [f'<i class="{kind}">{square}</i>' for kind, square in
               (("miss", "□"), ("repeat", "▨"), ("hit", "■"))]  # fmt: skip
    assert "".join(squares) in page


def test_an_answer_without_thinking_says_so_and_one_outside_a_group_has_no_advantage():
    answer = answers.answer_of(stored_answer("<think> </think> <answer> 9+5-1 </answer>"), find_attempts)
    assert [text.strip() for _, text in answer.spans] == ["no thinking", "answer: 9+5-1"]
    alone, grouped = (answers.Answers("q", [replace(answer, advantage=A)]).__html__() for A in (None, 0.0))
    assert "+0.00" in grouped and 'class="bar"' in grouped
    assert "+0.00" not in alone and 'class="bar"' not in alone


def test_what_is_said_in_chinese_has_its_english_behind_it_in_terminal_and_page():
    """A question in Chinese was shown without a word that most readers know."""
    answer = answers.answer_of(stored_answer("<think> 9+5=14+1=15:13 不 等 9+5=14-1=13:13 对 </think>"), find_attempts)
    assert answer.__rich__().plain.splitlines()[-2].strip() == "in Chinese: 对 ok 不 no 等 wait"
    group = answers.Answers("用9,5,1得13\n(a right answer: 9+5-1)", [answer, answers.Answer("不 9 <answer> 不对")])
    assert group.__rich__().plain.startswith("用9,5,1得13 make 13 from 9,5,1\n(a right answer: 9+5-1)\n")
    page = group.__html__()
    assert '用9,5,1得13</span><span class="english"> make 13 from 9,5,1</span>' in page
    assert '不</span><span class="english"> no</span><span class="text"> 9 </span>' in page
    assert "不对</span>" in page  # a word of the language itself, and none of the small world's


@pytest.mark.parametrize("family", [family for family in FAMILIES.values() if "zh" in family.questions])
def test_every_question_of_the_small_world_in_chinese_has_the_english_one_behind_it(family):
    chinese, english = (family.draw(Random(5), family.levels[-1], lang).prompt for lang in ("zh", "en"))
    assert [text for _, text in answers.glossed(chinese)] == [chinese, f" {english}"]


def test_a_word_of_thinking_is_said_in_english_as_the_small_world_says_it():
    said = {saying["zh"]: saying["en"] for saying in SAYINGS}
    assert {word: english for word, english in answers.ENGLISH.items() if len(word) == 1} == said


def test_a_group_is_shown_from_the_best_to_the_worst_each_with_its_tokens_where_they_are_stored():
    tokens = [["9", 0.0], ["wait", 0.4], ["<b>", -0.25]]
    rows = [stored_answer(SEARCHED, advantage=A, step=4) for A in (-1.0, 1.0)]
    rows[0]["log_ratio"] = tokens
    page = answers.Answers("q", [answers.answer_of(row) for row in rows]).__html__()
    assert page.index("+1.00") < page.index("−1.00") < page.index("token by token")
    assert "<u title=+0.40 style=--w:0.80>wait</u><u class=down title=-0.25 style=--w:0.50>&lt;b&gt;</u>" in page
    assert page.count("token by token") == 1  # nothing is said of what is not stored


def test_the_browser_holds_groups_over_the_run_and_the_last_one_stays_where_no_script_runs(tmp_path):
    run = Run(SHIPPED / "runs/zero")
    shown, words = answers.browser(run, 3)
    assert words == "What the groups of a run wrote", "and not what the picture's own example shows"
    still, page = shown.split("<iframe")
    assert still.count("<details>") == 16 and "What the groups" in words
    [given] = re.findall(r"window.given = (.*);", html.unescape(page))
    groups = json.loads(given)["groups"]
    assert [len(group["rewards"]) for group in groups] == [16] * 3
    assert all(any(group["advantage"]) for group in groups)
    assert [group["step"] for group in groups] == sorted(group["step"] for group in groups)
    assert groups[-1]["html"] in still
    assert answers.browser(Run(tmp_path)) is None and answers.player(Run(tmp_path)) == ""


def test_a_task_without_attempts_is_browsed_as_plain_text(tmp_path):
    (tmp_path / "config.json").write_text('{"model": "m", "task": {"name": "mine", "settings": {}}}')
    row = stored_answer("It is 13, I <think>.", advantage=0.5, step=2)
    (tmp_path / "samples.jsonl").write_text(json.dumps(row) + "\n")
    shown, _ = answers.browser(Run(tmp_path))
    assert "It is 13, I &lt;think&gt;." in shown and 'class="strip"' not in shown.split("<iframe")[0]
    assert "It is 13, I" in answers.player(Run(tmp_path))


@pytest.mark.parametrize("text", ["The sum is 13.", "<think> I add. </think> 13 <answer>", "", "</answer>"])
def test_a_text_without_attempts_is_shown_whole_with_its_tags_apart(text):
    answer = answers.answer_of(stored_answer(text), find_attempts)
    assert "".join(piece for _, piece in answer.spans) == text
    assert {piece for kind, piece in answer.spans if kind == "tag"} == set(re.findall("<[^>]*>", text))


def test_a_run_whose_task_only_a_notebook_knows_shows_plain_text(tmp_path):
    assert answers.attempts_of(Run(SHIPPED / "runs/zero")) is find_attempts
    (tmp_path / "config.json").write_text('{"model": "m", "task": {"name": "mine", "settings": {}}}')
    assert answers.attempts_of(Run(tmp_path)) is None
