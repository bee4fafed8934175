"""The table of claims, its place in the README, and what its command is given."""

import re

import pytest

from r1lab.claims.command import _seconds
from r1lab.claims.registry import CLAIMS, PROOFS, select
from r1lab.claims.runner import run_missing
from r1lab.claims.table import BEGIN, END, _signed, render, update_readme
from r1lab.errors import InputError
from r1lab.lab.ledger import ledger
from tests.fake_ledger import laboratory  # a fixture


def test_the_table_says_what_was_shown_and_what_was_not_run(laboratory):
    run_missing(laboratory, only="majority-vote")
    counts, _, *rows = render(laboratory).splitlines()
    assert len(rows) == 2 + len(CLAIMS) + len(PROOFS)
    assert re.findall(r"\d+ shown", counts) == [f"{sum('**shown**' in row for row in rows)} shown"]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1  # no bar inside a cell
    vote = next(row for row in rows if "cons@16" in row)
    assert "> +8.0" in vote and "**shown**" in vote and "points [+" in vote
    assert sum("**not run**" in row for row in rows) >= 3


def test_a_lesson_prints_what_the_ledger_holds(laboratory, capsys):
    run_missing(laboratory, only="majority-vote")
    run_missing(laboratory, only="random-reward", seed=1)
    capsys.readouterr()
    ledger("majority-vote", "random-reward", "dev1-language", data=laboratory.ledger.parent)
    vote, found, random, _, language = capsys.readouterr().out.splitlines()
    assert vote.endswith(": SHOWN") and "expected > +8.0; found +" in found
    assert random.endswith(": 1 OF 3 SEEDS") and language.endswith(": NOT RUN")
    with pytest.raises(InputError, match="no claim"):
        ledger("unheard-of", data=laboratory.ledger.parent)


def test_small_numbers_keep_their_digits():
    assert _signed(select("clip-higher")[0], -0.0123) == "−0.012"
    assert _signed(select("pass-at-1")[0], -0.0123) == "−1.2"
    assert _signed(select("pass-at-1")[0], -0.0001) == "0"


def test_the_table_goes_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# r1lab\n{BEGIN}\nold\n{END}\nmore\n")
    update_readme(readme, "| new |")
    assert readme.read_text() == f"# r1lab\n{BEGIN}\n| new |\n{END}\nmore\n"
    readme.write_text("# r1lab\n")
    with pytest.raises(InputError, match="claims:begin"):
        update_readme(readme, "| new |")


@pytest.mark.parametrize("text, seconds", [("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_a_budget_is_read(text, seconds):
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "-3m", "3 days"])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="30m"):
        _seconds(text)
