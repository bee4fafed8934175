"""The doctor: every planted fault is named first, on two models; healthy runs are left alone."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from r1lab.doctor import course, diagnose, environment_report, judge, steps
from r1lab.doctor import environment
from r1lab.doctor.diagnose import try_two_steps
from r1lab.doctor.history import measure
from r1lab.doctor.trial import examine, trial_config
from r1lab.errors import InputError
from r1lab.objective import LossConfig
from r1lab.rewards import random
from r1lab.stages.zero import PRESETS, Zero
from tests import planted_faults
from tests.fake_run import fake_run
from tests.planted_faults import COURSE_FAULTS, FAULTS, SMALL, named_in_course, named_in_steps


@pytest.mark.parametrize("model", ["base", "llama"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named_first(fault, model):
    assert named_in_steps(fault, model)[:1] == [fault.expected]


@pytest.mark.parametrize("fault", COURSE_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_in_the_curves_is_named_first(fault, tmp_path):
    generated = read(fake_run(tmp_path / "run") / "metrics.jsonl")
    for rows in (planted_faults.stored_rows(), with_intervals(generated)):
        assert named_in_course(fault, rows)[:1] == [fault.expected]


def test_every_rule_has_a_fault_that_it_finds():
    found = {fault.expected for fault in (*FAULTS, *COURSE_FAULTS)}
    assert found == {rule.__name__.replace("_", " ") for rule in (*steps.RULES, *course.RULES)}


SMALL_RUN = Zero(world=planted_faults.WORLD, rl=SMALL)


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def with_intervals(rows: list[dict]) -> list[dict]:
    """`fake_run` draws no loss, learning rate or groups; the rules do without."""
    return [row for row in rows if row["kind"] == "train" or "pass_at_1_ci95" in row]


# The presets' own settings, but for the size of the trial; the paper's has no clip from below.
PAPER = replace(SMALL, loss=PRESETS["paper"].rl.loss, learning_rate=3e-6)
HEALTHY = {
    "cpu": SMALL,
    "cpu, seed 1": replace(SMALL, seed=1),
    "cpu, seed 2": replace(SMALL, seed=2),
    "paper": PAPER,
    "paper, seed 1": replace(PAPER, seed=1),
    "cool": replace(SMALL, temperature=0.6, seed=3),
    "Dr. GRPO": replace(
        SMALL, divide_by_std=False, loss=LossConfig(aggregation="constant", beta=0.0)
    ),
    "GSPO": replace(SMALL, seed=4, loss=LossConfig(ratio="sequence", aggregation="sequence")),
}


@pytest.mark.parametrize("model", ["base", "llama"])
@pytest.mark.parametrize("settings", HEALTHY)
def test_a_healthy_run_is_left_alone(settings, model):
    well = planted_faults.patient(model, HEALTHY[settings])
    found = judge(steps.RULES, examine(well.ready()))
    assert found.found == []
    assert len(found.looked_for) == len(steps.RULES)


def test_control_arms_are_left_alone():
    """A coin or the format alone teach no reasoning, but the run does what it is told."""
    for arm in ("random", "format"):
        well = planted_faults.patient("base")
        well.rewards = replace(planted_faults.WORLD, arm=arm).rewards()
        found = judge(steps.RULES, examine(well.ready()))
        assert found.found == []


@pytest.mark.parametrize("name", ["zero", "true-seed1", "true-seed2"])
def test_stored_runs_that_learned_are_left_alone(name):
    assert judge(course.RULES, measure(planted_faults.stored_rows(name))).found == []


@pytest.mark.parametrize("seed", range(4))
def test_generated_curves_that_learn_are_left_alone(seed, tmp_path):
    rows = with_intervals(read(fake_run(tmp_path / "run", seed=seed) / "metrics.jsonl"))
    assert judge(course.RULES, measure(rows)).found == []


@pytest.mark.parametrize("seed", range(3))
def test_a_reward_for_format_alone_is_called_an_exploit(seed):
    found = judge(course.RULES, measure(planted_faults.stored_rows(f"format-seed{seed}"))).found
    assert found[0].name == "format exploit"
    assert "accuracy went from 0.2" in found[0].evidence


def test_a_run_without_any_row_says_nothing():
    assert judge(course.RULES, measure([])).found == []


def test_a_diagnosis_has_a_cause_a_fix_and_a_number():
    for rule in (*steps.RULES, *course.RULES):
        cause, fix = rule.__doc__.split("\n\n")
        assert cause.strip().endswith(".") and fix.strip().endswith(".")
    fault = next(fault for fault in COURSE_FAULTS if fault.expected == "entropy collapses")
    rows = fault.change(planted_faults.stored_rows())
    (diagnosis,) = judge(course.RULES, measure(rows)).found
    assert re.search(r"0\.\d\d", diagnosis.evidence)
    assert diagnosis.fix.startswith("Raise clip_high")


def test_a_run_is_judged_by_the_check_of_its_task():
    """One that refuses gold answers, and one that takes nonsense for right."""
    for accepts, expected in ((False, "refuses gold answers"), (True, "accepts nonsense")):
        ill = planted_faults.patient("base")
        ill.learner.task = replace(ill.learner.task, check=lambda *_: accepts)  # noqa: B023
        found = judge(steps.RULES, examine(ill.ready())).found
        assert [one.name for one in found] == [f"grader {expected}"]


def test_a_step_that_raises_is_a_finding_and_no_traceback(monkeypatch):
    def detached(*_):
        raise RuntimeError("element 0 of tensors does not require grad")

    monkeypatch.setattr("r1lab.training.loop.Learner.update", detached)
    found = try_two_steps(SMALL_RUN).found
    assert [diagnosis.name for diagnosis in found] == ["a step fails"]
    assert "does not require grad" in found[0].evidence


def test_the_trial_is_small_on_policy_and_refuses_what_a_run_refuses():
    config = trial_config(replace(PRESETS["cpu"].rl, learning_rate=1e-6))
    assert (config.rollouts, config.minibatches, config.warmup_steps) == (2, 1, 1)
    assert config.questions * config.group_size <= 32
    assert config.learning_rate == 1e-4
    with pytest.raises(InputError, match="group of one"):
        trial_config(replace(PRESETS["cpu"].rl, group_size=1))


def fake_config(folder, run):
    shutil.copy(f"{run}/config.json", folder / "config.json")
    return folder / "config.json"


def test_the_environment_report_names_what_is_missing(monkeypatch):
    report = {check.name: check for check in environment_report()}
    assert report["Python"].ok and report["base model"].ok
    assert all(check.advice for check in report.values() if check.ok is False)
    monkeypatch.setattr(environment, "SUPPORTED", ("2.7",))
    monkeypatch.setattr(environment, "DISK_GB", 1e9)
    report = {check.name: check for check in environment_report()}
    assert report["Python"].ok is False and "2.7" in report["Python"].advice
    assert report["disk"].ok is False and "free" in report["disk"].advice


def test_versions_other_than_the_tested_ones_are_said(monkeypatch, tmp_path):
    (tmp_path / "constraints.txt").write_text("torch==0.1\nnot-installed==1.0\n")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    report = {check.name: check for check in environment_report()}
    assert report["packages"].ok is None and "(tested: 0.1)" in report["packages"].found
    assert "not-installed" not in report["packages"].found
    (tmp_path / "constraints.txt").unlink()  # as in a wheel: nothing was compared
    report = {check.name: check for check in environment_report()}
    assert report["packages"].ok is None and "0 as tested" in report["packages"].found


def test_the_command_says_by_its_exit_code_whether_something_is_wrong(capsys, tmp_path):
    from r1lab import cli  # here, since it imports all of the package

    run = tmp_path / "run"
    run.mkdir()
    fake_config(run, "data/runs/format-seed0")
    shutil.copy("data/runs/format-seed0/metrics.jsonl", run)
    settings = json.loads((run / "config.json").read_text()) | {"caps": [[0, 32]], "questions": 4}
    (run / "config.json").write_text(json.dumps(settings))
    assert cli.main(["doctor", str(run)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "1. format exploit: format rose by" in said and "To do: Give format less weight" in said
    assert f"Looked for {len(steps.RULES) + len(course.RULES)} illnesses" in said
    assert cli.main(["doctor", "data/nowhere"]) == 2
    assert cli.main(["doctor", "data/base", "--preset", "none"]) == 2


def test_a_model_is_tried_with_the_preset_and_left_as_it_was(monkeypatch):
    before = open("data/base/model.safetensors", "rb").read()
    monkeypatch.setitem(PRESETS, "cpu", SMALL_RUN)
    assert diagnose("data/base").found == []
    assert open("data/base/model.safetensors", "rb").read() == before
    with pytest.raises(InputError, match="preset"):
        diagnose("data/base", preset="none")


def test_a_reward_that_cannot_score_is_no_crash():
    """None is "cannot be scored": such rows get advantage 0, and are no reason for a diagnosis."""
    well = planted_faults.patient("base")

    def half(prompts, completions, **columns):
        scores = random(prompts, completions, **columns)
        return [None if i % 4 == 0 else score for i, score in enumerate(scores)]

    half.blind = True
    well.rewards |= {"half": (half, 1.0)}
    found = judge(steps.RULES, examine(well.ready()))
    assert found.found == []
