"""The doctor: every planted fault is named first, on two models; healthy runs are left alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from r1lab.doctor import command, course, diagnose, environment_report, steps, try_two_steps
from r1lab.doctor.trial import trial_config
from r1lab.errors import InputError
from r1lab.models.lora import LoRA
from r1lab.models.policy import save_model
from r1lab.objective import LossConfig
from r1lab.rewards import random
from r1lab.stages.rl_stages import PRESETS, Zero
from tests.fake_run import fake_run
from tests.planted_variants import COURSE_VARIANTS, STEP_VARIANTS, TOKENIZER_VARIANTS
from tests.planted_faults import (
    COURSE_FAULTS, FAULTS, SMALL, WORLD, followed, named, named_in_steps, patient, stored_rows,
)  # fmt: skip

SMALL_RUN = Zero(world=WORLD, rl=SMALL)


def generated(folder, **options) -> list[dict]:
    """The rows of `fake_run`, which draws no loss, learning rate or groups; the rules do without."""
    text = (fake_run(folder / "run", **options) / "metrics.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [row for row in rows if row["kind"] == "train" or "pass_at_1_ci95" in row]


@pytest.mark.parametrize("model", ["base", "llama"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named_first(fault, model):
    assert named_in_steps(fault, model)[:1] == [fault.expected]


@pytest.mark.parametrize("fault", STEP_VARIANTS, ids=lambda fault: fault.name)
def test_a_variant_is_named_first(fault):
    """On the quicker model; `python -m tests.planted_faults` tries both."""
    assert named_in_steps(fault, "llama")[:1] == [fault.expected]


@pytest.mark.parametrize("fault", TOKENIZER_VARIANTS, ids=lambda fault: fault.name)
def test_a_tokenizer_of_another_model_is_named_first(fault):
    """Only a model that has learned something can be surprised by a prompt."""
    assert named_in_steps(fault, "base")[:1] == [fault.expected]


@pytest.mark.parametrize("fault", [*COURSE_FAULTS, *COURSE_VARIANTS], ids=lambda fault: fault.name)
def test_a_fault_in_the_curves_is_named_first(fault, tmp_path):
    for rows in (stored_rows(), generated(tmp_path)):
        first, *_ = followed(fault.plant(rows))
        assert first.name == fault.expected


def test_every_rule_has_a_fault_that_it_finds_a_cause_and_a_fix():
    rules = {*steps.RULES, *course.CAUSES, *course.EFFECTS}
    planted = (*FAULTS, *COURSE_FAULTS, *STEP_VARIANTS, *TOKENIZER_VARIANTS, *COURSE_VARIANTS)
    assert {fault.expected for fault in planted} == rules
    assert set(command.FINDINGS) == rules | {"a step fails"}
    for text in command.FINDINGS.values():
        assert set(text) == {"cause", "fix", "evidence"} and text["evidence"]
        assert text["cause"].endswith(".") and text["fix"].endswith(".")


# The presets' own settings, but for the size of the trial; the paper's has no clip from below.
PAPER = replace(SMALL, loss=PRESETS["paper"].rl.loss, learning_rate=3e-6)
CONSTANT = LossConfig(aggregation="constant", beta=0.0)
SEQUENCE = LossConfig(ratio="sequence", aggregation="sequence")
HEALTHY = {
    "cpu": SMALL,
    "cpu, seed 1": replace(SMALL, seed=1),
    "cpu, seed 2": replace(SMALL, seed=2),
    "paper": PAPER,
    "paper, seed 1": replace(PAPER, seed=1),
    "cool": replace(SMALL, temperature=0.6, seed=3),
    "Dr. GRPO": replace(SMALL, divide_by_std=False, loss=CONSTANT),
    "GSPO": replace(SMALL, seed=4, loss=SEQUENCE),
}


@pytest.mark.parametrize("model", ["base", "llama"])
@pytest.mark.parametrize("settings", HEALTHY)
def test_a_healthy_run_is_left_alone(settings, model):
    assert patient(model, HEALTHY[settings]).named() == []


def half(prompts, completions, **columns):
    """None is "cannot be scored": such rows get advantage 0, and are no reason for a diagnosis."""
    scores = random(prompts, completions, **columns)
    return [None if i % 4 == 0 else score for i, score in enumerate(scores)]


half.blind = True


@pytest.mark.parametrize("arm", ["random", "format", "half"])
def test_control_arms_and_rewards_that_cannot_score_are_left_alone(arm):
    """A coin or the format alone teach no reasoning, but the run does what it is meant to do."""
    well = patient("base")
    if arm == "half":
        well.rewards |= {"half": (half, 1.0)}
    else:
        well.rewards = replace(WORLD, arm=arm).rewards()
    assert well.named() == []


# SmolLM2 learned and then wrote copies: what is said of it is true.
LEARNED = ["zero", *"equal-clip grpo no-std noskill per-answer ppo-0.95 ppo-1.0 true".split()]
NOT_LEARNED = ["random", "tiny", "format", "smollm2"]


@pytest.mark.parametrize("name", sorted(path.name for path in Path("data/runs").iterdir()))
def test_nothing_is_found_in_stored_runs_that_learned_and_in_no_others(name):
    kind = name.partition("-seed")[0]
    assert kind in LEARNED + NOT_LEARNED
    found = [one.name for one in followed(stored_rows(name))]
    assert bool(found) == (kind in NOT_LEARNED)
    if kind in ("random", "tiny"):
        assert found == ["nothing moves"]


def test_a_task_of_a_users_own_is_tried(monkeypatch, tmp_path):
    file = tmp_path / "own_task.py"
    file.write_text("from tests.planted_faults import WORLD\ntask = WORLD.task()\n")
    monkeypatch.setitem(PRESETS, "cpu", SMALL_RUN)
    assert named(diagnose("data/base", task=f"{file}:task")) == []
    with pytest.raises(InputError):
        diagnose("data/base", task=f"{file}:other")


def test_curves_that_learn_and_curves_without_a_row_are_left_alone(tmp_path):
    assert all(followed(generated(tmp_path, seed=seed)) == [] for seed in range(4))
    assert followed([]) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_reward_for_format_alone_is_called_an_exploit(seed):
    first, *_ = followed(stored_rows(f"format-seed{seed}"))
    assert first.name == "format exploit" and "accuracy went from 0.2" in first.evidence
    assert first.fix.startswith("Give format less weight")


@pytest.mark.parametrize(
    ("accepts", "expected"), [(False, "refuses gold answers"), (True, "accepts nonsense")]
)
def test_a_run_is_judged_by_the_check_of_its_task(accepts, expected):
    ill = patient("base")
    ill.learner.task = replace(ill.learner.task, check=lambda *_: accepts)
    assert ill.named() == [f"grader {expected}"]


def test_a_run_with_an_adapter_trains_the_adapter_alone(monkeypatch, tmp_path):
    tried, examine = [], steps.examine
    monkeypatch.setattr(steps, "examine", lambda *given: tried.append(given[0]) or examine(*given))
    run = replace(SMALL_RUN, rl=replace(SMALL, lora=LoRA(rank=2)))
    assert named(try_two_steps(run)) == []
    before = patient("base").learner.policy.model.state_dict()
    for name, value in tried[0].policy.model.named_parameters():
        assert ".lora_" in name or value.equal(before[name.replace(".base_layer", "")])
    save_model(tried[0].policy.model, tried[0].tokenizer, tmp_path / "adapter")
    assert named(try_two_steps(run, tmp_path / "adapter")) == []


def test_a_step_that_raises_is_a_finding_and_no_traceback(monkeypatch):
    def detached(*_):
        raise RuntimeError("element 0 of tensors does not require grad")

    monkeypatch.setattr("r1lab.training.loop.Learner.add_loss", detached)
    (found,) = try_two_steps(SMALL_RUN)
    assert found.name == "a step fails" and "does not require grad" in found.evidence


def test_the_trial_is_small_on_policy_and_refuses_what_a_run_refuses():
    config = trial_config(replace(PRESETS["cpu"].rl, learning_rate=1e-6))
    assert (config.rollouts, config.minibatches, config.warmup_steps) == (2, 1, 1)
    assert config.questions * config.group_size <= 32
    assert config.learning_rate == 1e-4
    with pytest.raises(InputError, match="group of one"):
        try_two_steps(replace(SMALL_RUN, rl=replace(SMALL, group_size=1)))


def test_the_environment_report_names_what_is_missing(monkeypatch):
    def report(**changed):
        for name, value in changed.items():
            monkeypatch.setattr(command, name, value)
        return {check.name: check for check in environment_report()}

    found = report()
    assert found["Python"].ok
    assert all(check.advice for check in found.values() if check.ok is False)
    found = report(SUPPORTED=("2.7",), DISK_GB=1e9)
    assert found["Python"].ok is False and "2.7" in found["Python"].advice
    assert found["disk"].ok is False and "free" in found["disk"].advice


def test_the_command_says_by_its_exit_code_whether_something_is_wrong(capsys, tmp_path):
    from r1lab import cli  # here, since it imports all of the package

    stored, run = Path("data/runs/format-seed0"), tmp_path / "run"
    run.mkdir()
    shutil.copy(stored / "metrics.jsonl", run)
    settings = json.loads((stored / "config.json").read_text()) | {"caps": [[0, 24]], "questions": 2}
    (run / "config.json").write_text(json.dumps(settings))
    assert cli.main(["doctor", str(run)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "1. format exploit: format rose by" in said and "To do: Give format less weight" in said
    assert f"found, of {len(command.FINDINGS)} known illnesses." in said
    assert cli.main(["doctor", "data/nowhere"]) == 2
    assert cli.main(["doctor", "data/base", "--preset", "none"]) == 2


def test_a_model_is_tried_with_the_preset_and_left_as_it_was(monkeypatch):
    weights = Path("data/base/model.safetensors")
    before = weights.read_bytes()
    monkeypatch.setitem(PRESETS, "cpu", SMALL_RUN)
    assert named(diagnose("data/base")) == []
    assert weights.read_bytes() == before
