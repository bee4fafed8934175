"""The command line as a user meets it: exit codes, one sentence for each mistake, a lost worker."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import Dataset

from r1lab import cli
from r1lab.files import NOTEBOOKS
from r1lab.task import load_problems, save_problems
from tests.fake_run import fake_run
from tests.small_run import tiny_model


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory) -> Path:
    """A random model, and a test set of four problems."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model(folder)
    save_problems(load_problems("data/test_signs.jsonl")[:4], folder / "test.jsonl")
    return folder


@pytest.fixture(scope="module")
def small(small_folder) -> list[str]:
    """Options of a run that takes seconds."""
    options = {
        "--model": small_folder, "--test": small_folder / "test.jsonl", "--rollouts": 3, "--questions": 4,
        "--group-size": 4, "--minibatches": 2, "--eval-samples": 2, "--final-samples": 2,
        "--checkpoint-every": 1, "--arm": "random",
    }  # fmt: skip
    return [str(part) for pair in options.items() for part in pair] + ["--caps", "0", "16"]


def fails(capsys, *arguments: str) -> str:
    """Run a command that must end with exit code 2; the sentence it printed."""
    assert cli.main([str(argument) for argument in arguments]) == cli.BAD_INPUT
    return " ".join(capsys.readouterr().err.split())


def test_an_unknown_preset_is_named_with_those_there_are(capsys):
    assert "no preset of zero 'nope'; choose one of cpu, paper" in fails(capsys, "zero", "--preset", "nope")
    assert "no preset of zero 'tiny'" in fails(capsys, "zero", "--preset", "tiny")


def test_an_unknown_option_ends_with_2(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["zero", "--no-such-option", "1"])
    assert end.value.code == 2
    assert "no-such-option" in capsys.readouterr().err


def test_help_names_every_command_and_ends_with_0(capsys):
    assert cli.main(["--help"]) == cli.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)


def test_an_unknown_command_is_named_with_those_there_are(capsys):
    assert "no command 'trian'; choose one of zero, sft" in fails(capsys, "trian")


def test_help_needs_neither_torch_nor_the_commands():
    """Else it takes seconds."""
    script = "import sys, r1lab.cli; r1lab.cli.main(['--help']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"torch", "transformers", "tyro", "rich", "numpy", "r1lab.launch.commands"}


# Every command with settings that take seconds, and a part of what it prints. The chain's commands
# are refused here, before a stage begins; tests/test_pipeline.py runs them.
LINES = {
    "zero": (
        "--model MODEL --test TEST --mixture countdown/1 1.0 --rollouts 1 --questions 2 "
        "--group-size 2 --minibatches 1 --caps 0 16 --processes 1 --eval-samples 1 "
        "--final-samples 1", "Report: runs/zero"),
    "sft": ("MODEL ROWS --steps 1 --processes 1", "Model: runs/sft"),
    "r1": ("--from dev2", "comes"),
    "hacking": ("", "comes"),
    "pretrain": ("--preset tiny --steps 1 --tokens-per-step 512 --out made --processes 1", "Model: made"),
    "skills": ("MODEL --samples 1 --problems 1", "answer copies last"),
    "eval": ("MODEL --data TEST --samples 1 --max-tokens 8", "Level 1"),
    "sample": ("MODEL --level 1 --group-size 2 --max-tokens 8", "advantage"),
    "report": ("RUN", "Report: "),
    "claims": ("--only pass-at-1", "verdict"),
    "doctor": ("", "Python"),
    "plan": ("--preset cpu", "peak"),
    "grade": ("SUBMITTED --lesson 00_start_here", "ana: 00_start_here: 1 of 1 points"),
    "lab": ("--copy-only", "Lessons: notebooks"),
}  # fmt: skip


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_runs(name, small_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.chdir(tmp_path)
    options, words = LINES[name]
    rows = [{"prompt": "User: 1+1 Assistant:", "completion": "<think> 2 </think> <answer> 2 </answer>"}]
    Dataset.from_list(rows * 4).save_to_disk(tmp_path / "rows")
    places = {
        "MODEL": small_folder, "TEST": small_folder / "test.jsonl", "ROWS": tmp_path / "rows",
        "RUN": fake_run(tmp_path / "run"), "SUBMITTED": tmp_path / "submitted",
    }  # fmt: skip
    (tmp_path / "submitted/ana").mkdir(parents=True)
    shutil.copy(NOTEBOOKS / "00_start_here.ipynb", tmp_path / "submitted/ana")
    code = cli.main([name, *(str(places.get(word, word)) for word in options.split())])
    printed = capfd.readouterr()
    said = " ".join((printed.out + printed.err).split())
    assert words in said, said
    expected = {"r1": (2,), "hacking": (2,), "doctor": (0, 1)}  # a machine may be ill
    assert code in expected.get(name, (0,)), said


@pytest.mark.parametrize(("change", "words"), [
    (("--model", "runs/nowhere"), "config.json is missing"),
    (("--test", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
    (("--group-size", "1"), "a group of one has no mean to beat"),
    (("--processes", "3"), "do not divide over 3 processes"),
    (("--resume",), "there is no run to resume"),
])  # fmt: skip
def test_a_run_that_cannot_be_is_refused_before_any_work(small, capsys, tmp_path, monkeypatch, change, words):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    name = f"refused-{tmp_path.name}"
    said = fails(capsys, "zero", *small, "--name", name, *change)
    assert words in said
    assert not os.path.exists(f"runs/{name}")


def test_a_malformed_line_of_problems_is_named(small, capsys, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text(open("data/test_signs.jsonl").readline() + "{\n")
    assert "line 2" in fails(capsys, "zero", *small, "--test", broken)


def test_eval_and_report_of_nothing_are_refused(capsys):
    assert "config.json is missing" in fails(capsys, "eval", "data/nowhere")
    assert "not a run folder" in fails(capsys, "report", "data")
    assert "no problems 'signs/9'" in fails(capsys, "sample", "data/base", "--level", "9")


def start(small, runs_in, *more) -> subprocess.Popen:
    command = [sys.executable, "-m", "r1lab", "zero", *small, "--processes", "2", *more]
    return subprocess.Popen(command, cwd=runs_in, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers_of(parent: int) -> list[int]:
    """Its children that are spawned workers (not Python's resource tracker)."""
    listed = subprocess.run(
        ["ps", "-ww", "--ppid", str(parent), "-o", "pid=,args="], capture_output=True, text=True
    )
    rows = [line.split(None, 1) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, args in rows if "spawn_main" in args]


def test_two_processes_train_lose_a_worker_and_go_on(small, tmp_path):
    run = tmp_path / "runs" / "zero"
    first = start(small, tmp_path, "--rollouts", "400")
    while not list(run.glob("checkpoints/step-*")):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    os.kill(workers_of(first.pid)[1], signal.SIGKILL)
    _, said = first.communicate(timeout=240)
    assert first.returncode == cli.BAD_INPUT
    assert "was killed by SIGKILL" in said and "--resume" in said and "Traceback" not in said

    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"rollouts": 40}))
    second = start(small, tmp_path, "--rollouts", "40", "--resume")
    printed, said = second.communicate(timeout=240)
    assert second.returncode == 0, said
    assert "Report: runs/zero/report.html" in printed
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 80 and (run / "report.html").stat().st_size > 10_000

    third = start(small, tmp_path, "--rollouts", "40")
    _, said = third.communicate(timeout=240)
    assert third.returncode == cli.BAD_INPUT and "is finished" in said


def test_skills_are_measured_and_saved_for_each_family(tmp_path):
    """No test ran the command, and it ended in a NameError."""
    file = tmp_path / "skills.json"
    few = ["--samples", "1", "--problems", "1", "--save", str(file)]
    assert cli.main(["skills", "data/tiny", *few]) == 0
    assert set(json.loads(file.read_text())) == {"signs", "countdown", "sums"}


def test_eval_saves_what_it_prints_level_by_level(capsys, tmp_path):
    asked = "--data sums --problems 2 --samples 2 --max-tokens 8 --temperature 1 --top-p 1".split()
    assert cli.main(["eval", "data/base", *asked, "--save", str(tmp_path / "eval.json")]) == 0
    saved, shown = json.loads((tmp_path / "eval.json").read_text()), capsys.readouterr().out
    for level, block in saved["by_level"].items():
        assert block["n"] == 2 and block["pass_at_1"] <= block["pass_at_2"]
        assert f"Level {level}" in shown
    assert "Pass@2" in shown
    mean = sum(block["pass_at_1"] for block in saved["by_level"].values()) / len(saved["by_level"])
    assert mean == pytest.approx(saved["pass_at_1"])
    assert saved["machine"]["cpu"] and saved["date"]
