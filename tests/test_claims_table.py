"""The stored ledger: printed by the command line and by the lessons, from any folder."""

import json
import re
from pathlib import Path

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


README = " ".join(Path("README.md").read_text(encoding="utf-8").split())
PRINTED = {
    "pass-at-1": "lifts right answers by {} points over three seeds",
    "length": "Answers grow by {} tokens",
    "hacked-score": "The judge's score rises by {} points",
    "hacked-person": "what the reader likes falls by {}",
    "few-accuracy": "A cold start of 100 examples leaves accuracy {} points below R1-Zero's",
    "few-regains": "and reasoning RL then adds {}.",
    "distill-beats-rl": "Our distilled student was no better (−{} points)",
}


def test_the_readme_counts_the_ledger_and_prints_its_numbers():
    verdicts = [claim["verdict"] for claim in STORED["claims"].values()]
    assert f"We wrote down {len(verdicts)} claims" in README
    assert f"{verdicts.count('shown')} are shown" in README
    assert f"The other {len(verdicts) - verdicts.count('shown')} are refuted" in README
    level = STORED["claims"]["many-accuracy"]
    assert "After 2,400 examples nothing is lost." in README and level["verdict"] == "shown" and level["effect"] > 0
    for name, words in PRINTED.items():
        claim = STORED["claims"][name]
        size = abs(claim["effect"]) * (100 if claim["unit"] == "points" else 1)
        before, _, _ = README.partition(words.format(f"{size:.0f}" if size >= 1 else f"{size:.1f}"))
        assert before != README, f"{name} has another number: {size}"
        assert re.findall(r"\*\*(Shown|Not shown)\.\*\*", before)[-1].lower() == claim["verdict"]


def test_the_readme_prints_the_stored_run():
    run = json.loads(Path("data/runs/zero/summary.json").read_text(encoding="utf-8"))
    base, final = run["base"], run["final"]
    for name, scale, digits in (("pass_at_1", 100, 1), ("mean_tokens", 1, 0), ("reflection_per_answer", 1, 1)):
        before, after = (f"{scale * found[name]:.{digits}f}" for found in (base, final))
        assert re.search(rf"\| {before}(?: %)? \| \**{after}(?: %)?\** \|", README), name
    minutes = [f"{run[name] / 60:.1f}" for name in ("wall_seconds", "train_seconds")]
    assert f"took {minutes[0]} minutes, of which {minutes[1]} were training" in README
    assert f"after {run['steps']} updates" in README and f"to {100 * final['cons_at_16']:.0f} %" in README
