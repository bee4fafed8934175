"""The one table: terminal, notebook, page and Markdown say the same; the page of claims is what it prints."""

from pathlib import Path

import pytest
from rich.console import Console

from r1lab import cli
from r1lab.errors import InputError
from r1lab.evaluation.table import Cell, Table, level_table, measure_of, summary_table
from r1lab.lab import lesson, table
from r1lab.report.pages import stage_tables
from r1lab.run import Run

from tests.experiments.__main__ import put_between

ROOT = Path(__file__).resolve().parents[1]
TABLE = Table(["what", "base", "R1"], [["signs | sums", Cell("24 %", "21–27"), Cell("86 %", "83–89", True)],
                                       ["<b>", "1", Cell("2")]])  # fmt: skip


def test_markdown_aligns_numbers_and_escapes_bars():
    assert str(TABLE).splitlines() == [
        "| what | base | R1 |",
        "| --- | ---: | ---: |",
        r"| signs \| sums | 24 % 21–27 | **86 %** 83–89 |",
        "| <b> | 1 | 2 |",
    ]


def test_words_are_aligned_to_the_left_and_numbers_to_the_right():
    """A column of verdicts was aligned to the right, as if it held numbers."""
    rows = [["a", "ok", "1.5", "–", "−3 points"], ["b", "2 of 4", Cell("12 %", "9 to 15"), "", "× 2"]]
    table = Table(["what", "state", "right", "vote", "change"], rows)
    assert table.sides == ["left", "left", "right", "right", "right"]
    assert str(table).splitlines()[1] == "| --- | --- | ---: | ---: | ---: |"
    page, left = table._repr_html_(), ' style="text-align: left"'
    assert f'<th scope="col"{left}>state</th><th scope="col">right</th>' in page
    assert f"<td{left}>2 of 4</td><td>12 % <small>9 to 15</small></td>" in page
    assert page.startswith('<table style="font-variant-numeric: tabular-nums">')
    assert [column.justify for column in table.__rich__().columns] == table.sides
    assert Table(["what", "right"], []).sides == ["left", "right"]


def test_html_escapes_what_it_shows_and_marks_the_best():
    page = TABLE._repr_html_()
    assert '<th scope="row" style="text-align: left">&lt;b&gt;</th><td>1</td><td>2</td>' in page
    assert "<td><b>86 %</b> <small>83–89</small></td>" in page
    assert page == TABLE.__html__() and page.count("<tr>") == 3


def test_a_lesson_shows_rows_with_numbers_to_the_right_and_the_best_in_bold(monkeypatch):
    shown = []
    monkeypatch.setattr(lesson, "display", shown.append)
    table([{"who": "vote", "right": 0.176}, {"who": "PRM", "right": 0.626}], "Look", "{:.0%}", ["right"])
    table([{"": "vote", "right": 0.5}, {"": "PRM", "right": Cell("1", "0 to 2")}])
    ranked, named = map(str, shown)
    assert ranked.splitlines()[:3] == ["Look", "", "| who | right |"]
    assert ranked.splitlines()[-2:] == ["| vote | 18% |", "| PRM | **63%** |"]
    assert named.splitlines()[-2:] == ["| vote | 0.5 |", "| PRM | 1 0 to 2 |"]
    page = shown[0]._repr_html_()
    assert "<td>18%</td>" in page and "<td><b>63%</b></td>" in page and "<style" not in page
    assert '<caption style="text-align: left">Look</caption>' in page


def test_a_terminal_shows_the_same():
    console = Console(width=80)
    with console.capture() as capture:
        console.print(TABLE)
    shown = capture.get()
    assert "signs | sums" in shown and "86 % 83–89" in shown and "<b>" in shown


BASE = {"pass_at_1": 0.25, "pass_at_1_ci95": [0.2, 0.3], "mean_tokens": 40.0, "cons_at_4": 0.3,
        "in_order": None, "by_level": {"2": {"n": 9, "pass_at_1": 0.25, "ci95": [0.2, 0.3]}}}  # fmt: skip
FINAL = BASE | {"pass_at_1": 0.75, "mean_tokens": 120.0}


def test_one_evaluation_has_a_row_for_each_measure_that_it_holds():
    table = summary_table({"value": BASE})
    assert table.columns == ["Held-out problems", "value"]
    assert [title for title, *_ in table.rows] == [
        "Pass@1", "Cons@4 (majority vote)", "Tokens per answer", "Searches in order",
    ]  # fmt: skip
    assert table.rows[0][1] == Cell("25.0\N{NO-BREAK SPACE}%", "20.0 to 30.0")
    assert table.rows[-1][1] == Cell("–")


def test_of_two_evaluations_the_change_is_shown():
    table = summary_table({"Base": BASE, "Final": FINAL}, changes=True)
    changes = {row[0]: row[-1] for row in table.rows}
    assert changes["Pass@1"] == "+50 points" and changes["Tokens per answer"] == "× 3.0"
    assert changes["Searches in order"] == "–"
    [(level, before, _, change)] = level_table({"Base": BASE, "Final": {}}, changes=True).rows
    assert (level.text, level.interval, change) == ("Level 2", "9 problems", "–")
    assert (before.text, before.interval) == ("25\N{NO-BREAK SPACE}%", "20 to 30")  # no false precision


def test_a_share_is_printed_in_percent_whatever_it_is_a_share_of():
    """The share of repeated attempts was drawn as a number of attempts, near 0 on an axis in %."""
    assert measure_of("repeats").text(0.036) == "3.6\N{NO-BREAK SPACE}%"
    assert measure_of("level 3").value(0.5) == 50
    named = {key: measure_of(key).axis for key in ("mean_tokens", "entropy")}
    assert named == {"mean_tokens": "tokens per answer", "entropy": "entropy (nats per token)"}


def test_a_table_is_put_between_its_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- stages:begin -->\nold\n<!-- stages:end -->\nafter\n")
    put_between(readme, "stages", "| new |")
    put_between(readme, "stages", "| newer |")
    assert readme.read_text() == "before\n<!-- stages:begin -->\n| newer |\n<!-- stages:end -->\nafter\n"
    with pytest.raises(InputError, match="claims:begin"):
        put_between(readme, "claims", "| new |")


def test_the_page_s_stage_table_is_what_the_command_prints(tmp_path, capsys):
    chain = tmp_path / "chain"
    for file in (ROOT / "data/chain").rglob("*.json"):
        copied = chain / file.relative_to(ROOT / "data/chain")
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(file.read_bytes())
    assert cli.main(["report", str(chain)]) == 0
    table = str(stage_tables(Run(chain).summary)["chain"])
    page = (ROOT / "notebooks/claims.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    assert f"<!-- stages:begin -->\n{table}\n<!-- stages:end -->" in page, "copy what the command prints"


def test_the_page_s_claims_are_those_that_the_command_prints(capsys):
    assert cli.main(["claims"]) == 0
    printed = capsys.readouterr().out.strip()
    assert f"<!-- claims:begin -->\n{printed}\n<!-- claims:end -->" in (ROOT / "notebooks/claims.md").read_text()
