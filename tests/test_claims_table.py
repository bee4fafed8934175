"""The stored ledger: printed by the command line and by the lessons, from any folder."""

import re

import pytest

from r1lab.cli import main
from r1lab.errors import InputError
from r1lab.lab.lesson import ledger
from r1lab.report import claims
from r1lab.report.claims import claims_table, load_ledger, numbers, select

STORED = load_ledger()


def test_the_command_prints_every_claim_or_those_of_one_experiment(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["claims"]) == 0
    counts, _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 + len(STORED["claims"]) + len(STORED["theorems"])
    assert re.findall(r"(\d+) shown", counts) == [str(sum("**shown**" in row for row in rows))]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1  # no bar inside a cell
    assert main(["claims", "--only", "majority-vote"]) == 0
    vote = capsys.readouterr().out
    assert "> +8.0" in vote and "points [+" in vote and vote.startswith("1 claims: ")
    assert main(["claims", "--only", "unheard-of"]) == 2


def test_a_claim_that_never_ran_has_no_numbers_and_one_under_way_says_how_far():
    (vote,) = select(STORED["claims"], "majority-vote").values()
    never = {name: value for name, value in vote.items() if name != "effect"}
    own = {"vote": vote | {"verdict": "1 of 3 seeds"}, "never": never | {"verdict": "not run"}}
    table = claims_table({"claims": own, "theorems": []})
    assert "2 claims: 1 after 1 of 3 seeds, 1 not run. Besides, 0 theorems." in table
    assert numbers(never) == ("", "")


def test_a_lesson_prints_what_the_ledger_holds(capsys):
    ledger("majority-vote", "few-shot")
    head, _, vote, *others = capsys.readouterr().out.splitlines()
    assert head.startswith("| claim | expected") and "| > +8.0 | +" in vote
    assert vote.endswith("| **not shown** |") and len(others) == 3  # the experiment's three claims
    with pytest.raises(InputError, match="no claim or experiment"):
        ledger("unheard-of")


def test_small_numbers_keep_their_digits():
    assert claims._signed("nats", -0.0123) == "−0.012"
    assert claims._signed("points", -0.0123) == "−1.2"
    assert claims._signed("points", -0.0001) == "0"
