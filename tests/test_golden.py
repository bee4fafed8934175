"""The golden record: runs of today give the recorded numbers; `make golden` replays all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import cases
from tests.golden.replay import RECORD, about, differences

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = "another processor or version of torch rounds in another way"


@pytest.mark.slow
def test_the_quick_cases_give_the_recorded_numbers():
    """In processes of their own, without what the tests' settings add to the package."""
    made, here = json.loads(RECORD.read_text(encoding="utf-8"))["made"], about()
    replay = [sys.executable, "-m", "tests.golden.replay", "--quick"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(replay, cwd=ROOT, env=environment, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    same = all(made[name] == here[name] for name in ("machine", "instructions", "torch"))
    if done.returncode and "FAILED" not in done.stdout and not same:
        pytest.skip(f"{ELSEWHERE}: recorded on {made}, here {here}")
    assert done.returncode == 0


def test_every_case_is_recorded_and_every_record_has_its_case():
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))["cases"]
    assert set(recorded) == set(cases.CASES) > set(cases.QUICK)
    assert all("failed" not in result for result in recorded.values())


@pytest.mark.parametrize(("recorded", "found", "told"), [
    ({"a": [0.1 + 0.2]}, {"a": [0.3]}, "a[0] is 0.3, recorded 0.30000000000000004"),
    ({"a": 1.0}, {}, "a is 'nothing', recorded 1.0"),
    ({"a": [1, 2]}, {"a": [1]}, ".a has 1 entries, recorded 2"),
    ({"a": float("nan")}, {"a": float("nan"), "new": 1}, None),
    ({"a": True}, {"a": 1}, "a is 1, recorded True"),
])  # fmt: skip
def test_the_first_difference_is_named(recorded, found, told):
    assert next(differences(recorded, found), None) == told
