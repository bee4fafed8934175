"""What is run as a whole for many claims: the chain, the searches and the next steps."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from r1lab.errors import InputError
from r1lab.evaluation.estimators import macro_mean
from r1lab.report.claims import claims_table, load_ledger
from r1lab.stages.pipeline import MEASURED, Chain, R1Config
from tests.experiments import experiment, measures
from tests.experiments.chain import KEPT, after_short, chain_values, levels_of
from tests.experiments.experiment import EXPERIMENTS, load_run, run_step, save_run
from tests.experiments.fake_ledger import laboratory, verdicts  # the first is a fixture
from tests.experiments.measures import StoredRun
from tests.experiments.more_data import French
from tests.experiments.registry import CLAIMS
from tests.experiments.runner import run_missing


def test_an_experiment_runs_once_for_all_its_claims_and_is_found_by_its_name(laboratory):
    run_missing(laboratory, only="chain", seed=1)
    assert [name.rpartition("-")[0] for name, _ in laboratory.experiments.calls] == ["chain-seed1"]
    assert laboratory.run.calls == []
    found = verdicts(laboratory)
    assert {found[c.id] for c in CLAIMS if c.jobs == ["chain"]} == {"1 of 3 seeds"}
    assert not any(entry.get("shown") for entry in laboratory.results().values())
    table = claims_table(load_ledger(laboratory.ledger))
    assert " after 1 of 3 seeds" in table.split(". Besides")[0]
    run_missing(laboratory, only="dev2-regains")
    assert verdicts(laboratory)["dev2-regains"] == "shown"
    assert [call[0][:11] for call in laboratory.experiments.calls] == [
        "chain-seed1", "chain-seed2", "chain-seed3"
    ]  # fmt: skip


def test_the_chain_s_seed_that_was_known_before_its_claims_is_not_asked_for(laboratory):
    with pytest.raises(InputError, match=r"no seed 0; theirs are \[1, 2, 3\]"):
        run_missing(laboratory, only="chain", seed=0)
    run_missing(laboratory, only="dev2-regains")
    run_missing(laboratory, only="prm-hacked")
    asked_for = {
        name: list(entry["per_seed"])
        for name, entry in laboratory.results().items() if "per_seed" in entry
    }  # fmt: skip
    assert asked_for == {"dev2-regains": ["1", "2", "3"], "prm-hacked": ["0", "1", "2"]}


def test_the_chain_is_given_the_ledger_s_own_r1_zero(laboratory):
    run_missing(laboratory, only="true", seed=1)
    run_missing(laboratory, only="chain")
    given = [zero for _, zero in laboratory.experiments.calls]
    assert given == [laboratory.job("true", 1).folder, None, None]


def test_a_next_step_waits_for_its_chain_and_is_given_it(laboratory):
    calls = laboratory.experiments.calls
    waiting = run_missing(laboratory, only="french")
    assert calls == [] and len(waiting) == 3
    run_missing(laboratory, only="chain", seed=2)
    waiting = run_missing(laboratory, only="french")
    assert len(waiting) == 2 and len(calls) == 2
    assert calls[1][0].startswith("french-seed2-")
    assert calls[1][1] == laboratory.job("chain", 2).folder
    shutil.rmtree(laboratory.job("chain", 2).folder)  # its values are kept, its models are gone
    assert len(run_missing(laboratory, only="programs")) == 3
    assert run_missing(laboratory, only="wordings") == []  # needs none


def test_another_chain_makes_what_started_from_it_stale(laboratory, tmp_path):
    before = {name: laboratory.job(name, 1).key for name in EXPERIMENTS}
    (tmp_path / "data/small/model.safetensors").write_bytes(b"another student")
    after = {name: replace(laboratory).job(name, 1).key for name in EXPERIMENTS}
    changed = {name for name in EXPERIMENTS if before[name] != after[name]}
    assert changed == {"chain", "few-shot", "french", "programs", "one-loss", "skill", "distil"}


def test_a_next_step_is_kept_with_what_its_arms_took(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "FILES", tmp_path)
    folder, given = tmp_path / "french-seed1-key", []

    def arms(config, folder):
        given.append((config.chain, config.seed))
        (folder / "french").mkdir(parents=True)
        (folder / "french/summary.json").write_text('{"wall_seconds": 7.5}')
        (folder / "summary.json").write_text("{}")
        return {"french/signs": np.array([0.5]), "levels/signs": np.array([1])}

    run_step("french", arms, French(), 1, "key", folder, Path("runs/claims/chain-seed1"))
    kept = load_run("french", 1)
    assert given == [("runs/claims/chain-seed1", 1)]
    assert (kept.about["key"], kept.about["wall_seconds"]) == ("key", 7.5)
    assert kept.row("french", "signs").values.tolist() == [0.5]


def test_what_an_experiment_keeps_comes_back_and_a_damaged_file_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "FILES", tmp_path)
    assert load_run("chain", 0) is None
    values = {"r1/signs": np.array([0.25, np.nan, 1.0]), "levels/signs": np.array([1, 2, 2])}
    save_run("chain", 0, "k", 1.0, values)
    effect = measures.stored("chain/r1", "signs", "signs")({"chain": load_run("chain", 0)})
    assert np.array_equal(effect.values, [0.25, np.nan, 1, 0.25, np.nan, 1], equal_nan=True)
    assert effect.levels.tolist() == [1, 2, 2, 1001, 1002, 1002] and len(set(effect.ids)) == 3
    with pytest.raises(InputError, match="no logic of r1"):
        load_run("chain", 0).row("r1", "logic")
    whole = (tmp_path / "chain-seed0.npz").read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2]):
        (tmp_path / "chain-seed0.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="chain-seed0.npz is damaged"):
            load_run("chain", 0)


def test_hacking_is_counted_from_where_r1_s_own_stage_ends():
    rows = [{"kind": "train", "step": step, "model": step, "human": -step} for step in range(0, 80, 4)]
    rows.append({"kind": "eval", "step": 80, "reasoning": 0.5})
    late = after_short(rows)
    assert late["model"].tolist() == [step - 20 for step in (60, 64, 68, 72, 76)]
    assert late["human"].tolist() == [20 - step for step in (60, 64, 68, 72, 76)]


def test_all_that_the_chain_s_claims_read_is_kept_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    chain = Chain(R1Config(), "chain", tmp_path)
    (chain.folder / "hacking").mkdir(parents=True)
    for stage in MEASURED:  # every value of a stage is one number of its own
        values = {row: np.full(len(levels_of(row)), len(stage) / 100) for row in KEPT}
        (chain.folder / stage).mkdir()
        np.savez(chain.folder / stage / "values.npz", **values)
    rows = [{"kind": "train", "step": n, "model": 0.5 + n / 400, "human": 0.5} for n in range(0, 96, 4)]
    for payer in ("model", "human"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (chain.folder / f"hacking/{payer}.jsonl").write_text(text)
    runs = {"chain": StoredRun({}, chain_values(chain))}
    found = {c.id: c.measure(runs).values for c in CLAIMS if c.jobs == ["chain"]}
    means = {name: values.mean() for name, values in found.items()}
    assert means["distill-gains"] == pytest.approx((len("student_sft") - len("student")) / 100)
    assert means["hacked-score"] == pytest.approx((82 - 20) / 400) and means["hacked-person"] == 0
    assert all(np.isfinite(values).all() for values in found.values())


def test_the_stored_searches_are_read_from_the_notebook_s_file(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    runs = {"search": experiment.load_search(0)}
    ledger = json.loads(Path("data/claims.json").read_text())["claims"]
    for claim in (claim for claim in CLAIMS if claim.jobs == ["search"]):
        effect = claim.measure(runs)
        mean = macro_mean(effect.values, effect.levels)
        assert mean == pytest.approx(ledger[claim.id]["per_seed"]["0"], abs=1e-9)
    assert experiment.load_search(99) is None
