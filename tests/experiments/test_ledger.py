"""The ledger: every claim can hold and can fail, jobs are shared, resumed, and kept."""

from dataclasses import replace

import numpy as np
import pytest

from r1lab.errors import InputError
from r1lab.evaluation.estimators import Estimate
from tests.experiments import measures, runner
from tests.experiments.experiment import EXPERIMENTS
from tests.experiments.fake_ledger import (
    AS_FEARED,
    FAILED,
    OPPOSITE,
    SEARCH,
    FakeExperiments,
    FakeZero,
    laboratory,  # a fixture
    verdicts,
)
from tests.experiments.registry import ARMS, CLAIMS, Claim, select
from tests.experiments.runner import run_missing
from tests.experiments.settings import ZERO, rl_stage


def test_every_claim_is_shown_where_runs_end_as_the_paper_says(laboratory):
    assert run_missing(laboratory) == []
    assert set(verdicts(laboratory).values()) == {"shown"}


def test_no_claim_is_shown_where_runs_end_the_other_way(laboratory):
    feared = FakeExperiments(OPPOSITE, {n: -value for n, value in SEARCH.items()}, FAILED)
    run = FakeZero(AS_FEARED, (0.99, 0.99, 0.99), 0.25)
    opposite = replace(laboratory, run=run, experiments=feared)
    run_missing(opposite)
    found = verdicts(opposite)
    # In this world the format arm learns formats too.
    assert {name for name, word in found.items() if word != "not shown"} <= {"format-learned"}


def test_arms_that_claims_share_run_once_for_each_seed(laboratory):
    run_missing(laboratory)
    calls = laboratory.run.calls
    assert len(calls) == len(set(calls)) == len(ARMS) * 3
    assert run_missing(laboratory) == [] and len(calls) == len(ARMS) * 3


def test_one_claim_runs_only_its_arms(laboratory):
    run_missing(laboratory, only="reflection-null")
    assert {call.split("/")[1].split("-")[0] for call in laboratory.run.calls} == {"true", "random"}
    assert verdicts(laboratory)["small-base"] == "not run"
    with pytest.raises(InputError, match="pass-at-1"):
        run_missing(laboratory, only="no such claim")
    with pytest.raises(InputError, match=r"no seed 7; theirs are \[0, 1, 2, 3\]"):
        run_missing(laboratory, seed=7)


def test_a_spent_budget_starts_nothing_and_says_what_is_missing(laboratory):
    missing = run_missing(laboratory, only="pass-at-1", budget_seconds=0.0)
    assert laboratory.run.calls == [] and len(missing) == 3
    assert set(verdicts(laboratory).values()) == {"not run"}


def test_a_job_that_was_stopped_is_resumed_by_the_next_call(laboratory):
    stopped_once = []

    def run(settings, name, runs):
        if not stopped_once:
            stopped_once.append(name)
            (runs / name).mkdir(parents=True)
            (runs / name / "config.json").write_text("{}")
            raise KeyboardInterrupt
        laboratory.run(settings, name, runs)

    interrupted = replace(laboratory, run=run)
    with pytest.raises(KeyboardInterrupt):
        run_missing(interrupted, only="pass-at-1")
    assert run_missing(interrupted, only="pass-at-1") == []
    assert stopped_once[0] in laboratory.run.calls


def test_a_job_without_its_base_waits_and_the_others_run(laboratory, tmp_path):
    (tmp_path / "data" / "noskill" / "model.safetensors").unlink()
    waiting = run_missing(laboratory)
    assert len(waiting) == 3 and all("noskill" in name for name in waiting)
    found = verdicts(laboratory)
    assert found.pop("no-skill") == "not run"
    assert set(found.values()) == {"shown"}


def test_fewer_seeds_never_replace_more(laboratory):
    def results(laboratory):
        entries = laboratory.results().items()
        return {name: {**entry, "verdict": ""} for name, entry in entries}

    run_missing(laboratory, only="chain")
    before = results(laboratory)
    other = FakeExperiments()
    other["chain"] = replace(other["chain"], settings={"samples": 5})
    fewer = replace(laboratory, experiments=other)
    run_missing(fewer, only="dev2-regains", seed=1)
    assert results(fewer) == before
    assert verdicts(fewer)["dev2-regains"] == "shown (stale)"


def test_a_problem_without_a_value_has_no_say(laboratory):
    claim = select("dev1-language")[0]
    run_missing(laboratory, only=claim.id)
    full = laboratory.results()[claim.id]
    for stored in laboratory.experiments.kept.values():
        for row in ("dev1/language_en", "dev1/language_zh"):
            stored.values[row][::2] = np.nan
    runner.record(laboratory, [claim])
    entry = laboratory.results()[claim.id]
    assert entry["effect"] != full["effect"] and entry["effect"] == pytest.approx(0.99, abs=0.002)
    assert all(np.isfinite(value) for value in entry["per_seed"].values())


def test_where_no_problem_differs_a_new_one_may_differ_either_way(laboratory):
    (claim,) = select("language-reward")
    run_missing(laboratory, only=claim.id)
    for stored in laboratory.experiments.kept.values():
        stored.values.update({name: np.ones(20) for name in stored.values if "/language" in name and "levels" not in name})
    run_missing(laboratory, only=claim.id)
    entry = laboratory.results()[claim.id]
    low, high = entry["ci95"]
    assert entry["effect"] == 0 and -low == high == pytest.approx(1 - 0.025 ** (1 / 40)) and not entry["shown"]


def test_results_outlive_their_run_folders(laboratory, tmp_path):
    run_missing(laboratory)
    before = laboratory.results()
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    run_missing(replace(laboratory), budget_seconds=0.0)
    assert laboratory.results() == before
    assert set(verdicts(laboratory).values()) == {"shown"}


def test_a_damaged_ledger_is_told_and_kept(laboratory):
    laboratory.ledger.write_text('{"claims": ')
    with pytest.raises(InputError, match="claims.json"):
        run_missing(laboratory)
    assert laboratory.ledger.read_text() == '{"claims": '


def test_an_entry_names_the_commits_of_its_runs(laboratory):
    run_missing(laboratory, only="pass-at-1")
    assert laboratory.results()["pass-at-1"]["commit"] == "commit0, commit1, commit2"


def test_shown_needs_all_seeds_and_the_whole_interval_within_the_bounds():
    claim = Claim("c", "s", "§", ("true",), measures.gain("true"), "above", 0.1)
    assert claim.holds([0.2, 0.3], Estimate(0.25, 0.15, 0.35))
    assert not claim.holds([0.2, 0.05], Estimate(0.25, 0.15, 0.35))
    assert not claim.holds([0.2, 0.3], Estimate(0.25, 0.05, 0.35))
    below, within = replace(claim, relation="below"), replace(claim, relation="within")
    assert below.holds([-0.5], Estimate(-0.5, -0.6, 0.05))
    assert not below.holds([0.0], Estimate(0.0, -0.1, 0.11))
    assert within.holds([0.05], Estimate(0.05, -0.05, 0.09))
    assert not within.holds([-0.15], Estimate(-0.05, -0.09, 0.0))


def test_the_registry_is_consistent():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert {name for claim in CLAIMS for name in claim.jobs} == {*ARMS, *EXPERIMENTS}


def test_arms_start_from_what_the_preset_would_run(laboratory):
    """Each arm is a configuration that can train, and differs from all others."""
    settings = [{**ZERO, **changes} for changes in ARMS.values()]
    for own in settings:
        rl_stage(own).rl.check(processes=2)
    assert len({repr(own) for own in settings}) == len(ARMS)
