"""A result is stale where what it depends on has changed; where the run begins alike, it is kept."""

from dataclasses import replace

import pytest

from r1lab.claims import runner
from r1lab.claims.experiments import EXPERIMENTS
from r1lab.claims.keys import code_key, job_key
from r1lab.claims.registry import CLAIMS, select
from r1lab.claims.replay import replay_stale
from r1lab.claims.runner import run_missing, verdict
from r1lab.errors import InputError
from r1lab.training.config import GRPOConfig
from tests.fake_ledger import laboratory, verdicts  # the first is a fixture


def test_other_settings_another_base_or_other_problems_make_results_stale(laboratory, tmp_path):
    def stale(laboratory):
        return {name for name, word in verdicts(laboratory).items() if word == "stale"}

    run_missing(laboratory)
    whole = {claim.id for claim in CLAIMS if set(claim.jobs) & set(EXPERIMENTS)}
    alone = {claim.id for claim in CLAIMS} - whole
    tuned = replace(laboratory, config=replace(laboratory.config, learning_rate=1e-3))
    assert stale(tuned) == alone
    (tmp_path / "data/tiny/model.safetensors").write_bytes(b"retrained")
    assert stale(replace(laboratory)) == {"small-base"}
    (tmp_path / GRPOConfig().eval_file).write_text("other problems")
    assert stale(replace(laboratory)) == alone
    (tmp_path / "data/small/model.safetensors").write_bytes(b"retrained")
    from_chain = {name for name, it in EXPERIMENTS.items() if "chain" in (name, it.after)}
    chained = {claim.id for claim in CLAIMS if set(claim.jobs) & from_chain}
    assert stale(replace(laboratory)) - alone == chained


def test_a_claim_whose_bounds_were_moved_is_stale(laboratory):
    run_missing(laboratory)
    claim = select("random-reward")[0]
    entry = laboratory.results()[claim.id]
    assert verdict(replace(claim, threshold=0.5), entry, laboratory.jobs(claim)) == "stale"


@pytest.mark.parametrize("differs", [None, "metrics", "base"])
def test_a_stale_run_that_begins_alike_is_kept_and_another_is_not(
    laboratory, monkeypatch, differs
):
    """Only code changed: the base's evaluation and the first rows of the metrics decide."""
    run_missing(laboratory, only="pass-at-1")
    monkeypatch.setattr(runner, "code_key", lambda entry: "moved a function")
    moved, claim = replace(laboratory), select("pass-at-1")[0]
    assert verdict(claim, moved.results()[claim.id], moved.jobs(claim)) == "stale"
    if differs == "metrics":
        laboratory.run.replayed = 0.29
    if differs == "base":
        laboratory.run.replayed_base = {"accuracy": (0.5, 0.2, 0.9)}
    kept = 0 if differs else 3
    assert len(replay_stale(moved)) == kept
    assert len(run_missing(moved, only="pass-at-1", budget_seconds=0.0)) == 3 - kept


def test_a_run_with_other_settings_is_not_kept_however_alike_it_begins(laboratory):
    run_missing(laboratory, only="pass-at-1")
    longer = replace(laboratory, config=replace(laboratory.config, rollouts=99))
    assert replay_stale(longer) == []


def test_a_missing_test_set_is_told(laboratory, tmp_path):
    config = GRPOConfig()
    assert job_key("code", config) != job_key("other code", config)
    (tmp_path / config.eval_file).unlink()
    with pytest.raises(InputError, match="test_signs"):
        job_key("code", config)


def write_package(folder, **files):
    for name, source in files.items():
        path = folder / "pack" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return code_key("pack.entry", folder / "pack")


def test_code_counts_where_the_entry_can_reach_it(tmp_path):
    start = dict(
        entry='"""Doc."""\nfrom pack.room import part\nx = 1\n',
        room__part='from pack.report import show\ny = 1\n',
        room__deep="value = 1\n",
        report="show = 1\n",
        stranger="z = 1\n",
    )
    (tmp_path / "pack/room").mkdir(parents=True)
    (tmp_path / "pack/room/__init__.py").write_text("from .deep import value\n")
    key = write_package(tmp_path, **start)
    same = [
        dict(entry="# a comment\nfrom pack.room import part\n\nx  =  1\n"),
        dict(stranger="z = 2\n"),
        dict(report="show = 2\n"),
    ]
    for change in same:
        assert write_package(tmp_path, **{**start, **change}) == key
    for change in [dict(entry=start["entry"] + "x = 2"), dict(room__part="y = 2"),
                   dict(room__deep="value = 2")]:  # fmt: skip
        assert write_package(tmp_path, **{**start, **change}) != key
