"""The searches' file: seeds that are missing are run, and never mixed with those of another key."""

import json

import pytest

from r1lab.errors import InputError
from tests.experiments import searches
from tests.experiments.searches import SearchConfig, run_searches


def test_a_comparison_with_other_settings_is_refused(tmp_path):
    out = tmp_path / "search.json"
    out.write_text(json.dumps({"config": {"problems": 7}, "runs": []}))
    with pytest.raises(InputError, match="other settings; delete it, or name another file"):
        run_searches(SearchConfig(seeds=1), out, "key")
    assert json.loads(out.read_text())["runs"] == []


def test_stale_searches_are_replaced_and_never_mixed_with_new_ones(tmp_path, monkeypatch):
    out, seeds = tmp_path / "search.json", []
    monkeypatch.setattr(searches, "run_seed", lambda config, seed: seeds.append(seed) or {})

    def keys(seeds: int, key: str) -> list[str]:
        run_searches(SearchConfig(seeds=seeds), out, key)
        return [run["key"] for run in json.loads(out.read_text())["runs"]]

    assert keys(3, "old") == ["old"] * 3 == keys(3, "old")
    assert keys(1, "new") == ["new"] and keys(2, "new") == ["new"] * 2
    assert seeds == [0, 1, 2, 0, 1]
