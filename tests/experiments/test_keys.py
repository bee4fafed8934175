"""A result is stale where what it depends on has changed, and only there."""

from dataclasses import replace

import pytest

from r1lab.errors import InputError
from r1lab.stages.pipeline import R1Config
from r1lab.stages.rl_stages import RLStage
from r1lab.training.sft import SFTConfig
from tests.experiments import keys
from tests.experiments.experiment import EXPERIMENTS
from tests.experiments.fake_ledger import laboratory, verdicts  # the first is a fixture
from tests.experiments.keys import result_key
from tests.experiments.registry import CLAIMS, select
from tests.experiments.runner import Laboratory, run_missing, verdict
from tests.experiments.settings import CHAIN, GROUP, SFT, ZERO, leaves, rl_stage


def stale(laboratory) -> set[str]:
    return {name for name, word in verdicts(laboratory).items() if "stale" in word}


def test_other_settings_another_base_or_other_problems_make_results_stale(laboratory, tmp_path):
    run_missing(laboratory)
    whole = {claim.id for claim in CLAIMS if set(claim.jobs) & set(EXPERIMENTS)}
    alone = {claim.id for claim in CLAIMS} - whole
    tuned = replace(laboratory, settings={**ZERO, "learning_rate": 1e-3})
    assert stale(tuned) == alone
    (tmp_path / "data/tiny/model.safetensors").write_bytes(b"retrained")
    assert stale(replace(laboratory)) == {"small-base"}
    (tmp_path / "data/small/model.safetensors").write_bytes(b"retrained")
    from_chain = {name for name, it in EXPERIMENTS.items() if "chain" in (name, it.after)} | {"skill", "distil"}
    chained = {claim.id for claim in CLAIMS if set(claim.jobs) & from_chain}
    assert stale(replace(laboratory)) == chained | {"small-base"}
    (tmp_path / "data/test_more.jsonl").write_text("a problem that no run may train on")
    assert stale(replace(laboratory)) == whole | alone


def test_a_version_that_is_raised_makes_that_arm_stale_and_what_starts_from_it(
    laboratory, monkeypatch
):
    run_missing(laboratory)
    monkeypatch.setitem(keys.VERSIONS, "random", 2)
    assert stale(replace(laboratory)) == {"reflection-null", "random-reward"}
    monkeypatch.setitem(keys.VERSIONS, "chain", 2)
    assert "french-words" in stale(replace(laboratory))


def test_a_claim_whose_bounds_were_moved_is_stale(laboratory):
    run_missing(laboratory)
    claim = select("random-reward")[0]
    entry = laboratory.results()[claim.id]
    assert verdict(replace(claim, threshold=0.5), entry, laboratory.jobs(claim)) == "shown (stale)"


def test_where_files_lie_is_not_in_the_key_and_missing_test_sets_are_reported(
    tmp_path, monkeypatch
):
    here = result_key("arm", {"model": "data/base", "rollouts": 3}, [])
    assert here == result_key("arm", {"model": "elsewhere/base", "rollouts": 3}, [])
    assert here != result_key("arm", {"model": "data/tiny", "rollouts": 3}, [])
    monkeypatch.setattr(keys, "SHIPPED", tmp_path)
    with pytest.raises(InputError, match="restore the test sets"):
        result_key("arm", {}, [])


def test_what_is_written_down_is_what_the_package_runs():
    """Where this fails, the package's settings have changed: the ledger's go with them, or not.

    `french_share` was always 0; the experiment `french` has its own."""
    assert rl_stage(ZERO) == RLStage()
    assert SFTConfig(**SFT) == SFTConfig(epochs=2)
    config = R1Config()
    for stage, written in CHAIN.items():
        own = getattr(config, stage)
        if stage in ("zero", "reasoning", "scenarios", "student_rl", "hacking"):
            written = {**{k: v for k, v in ZERO.items() if k not in ("model", *GROUP)}, **written}
        elif isinstance(written, dict) and "sft" in written:
            written = {**written, "sft": {**SFT, **written["sft"]}}
        found = leaves(own)
        missing = [
            leaf for leaf in leaves(written)
            if leaf not in found and leaf[0] not in ("", "loss", "sampling", "sft", "french_share")
        ]  # fmt: skip
        assert not missing or written == own, (stage, missing)


def test_no_result_of_the_repository_is_stale():
    laboratory = Laboratory()
    found = verdicts(laboratory)
    assert set(found.values()) == {"shown", "not shown"}
    stored = laboratory.results()
    assert list(stored) == list(found)
    assert {name: entry["verdict"] for name, entry in stored.items()} == found
