"""The launch scripts started for real: torchrun on this machine, Slurm's part played by stubs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from r1lab.files import read_rows
from tests.tools.bootstrap import VLLM_LOCK
from r1lab.task import load_problems, save_problems
from r1lab.run import Run
from r1lab.training.checkpoint import SHARDS, checkpoint_path

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "r1lab" / "launch"
BIN = Path(sys.executable).parent  # of this environment: python and torchrun
# Small rollouts of the shipped base.
SMALL = [
    "--questions", "4", "--group-size", "4", "--caps", "0", "24", "--test", "asked.jsonl",
    "--final-samples", "1", "--microbatch-tokens", "512",
]  # fmt: skip


def environment(path: Path, **more: str) -> dict[str, str]:
    """This process's own, without what it may have of a launcher, with `path` before all others."""
    taken = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "R1LAB_STATIC")
    kept = {name: value for name, value in os.environ.items() if name not in taken}
    return kept | {"PATH": f"{path}:{os.environ['PATH']}"} | more


def test_node_sh_trains_two_steps_in_two_processes_that_share_the_weights(tmp_path):
    (tmp_path / "data").symlink_to(ROOT / "data")
    save_problems(load_problems(ROOT / "data" / "test_signs.jsonl")[:2], tmp_path / "asked.jsonl")
    done = subprocess.run(
        ["sh", LAUNCH / "node.sh", "cpu", "--name", "two", "--parallel.shard", "--rollouts", "1",
         "--minibatches", "2", *SMALL],
        cwd=tmp_path, capture_output=True, text=True, timeout=900,
        env=environment(
            BIN, PROCESSES="2", RESTARTS="0", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES=""
        ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "cpu: data/base" in done.stdout and done.stdout.count("Report: ") == 1
    run = tmp_path / "runs" / "two"
    assert json.loads((run / "summary.json").read_text())["steps"] == 2
    (row,) = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]
    assert row["step"] == 2 and row["grad_norm"] > 0 and row["skipped"] == 0
    shares = {path.name[:4] for path in (checkpoint_path(run, 2) / SHARDS).glob("*.distcp")}
    assert shares == {"__0_", "__1_"}, "each process wrote its share"


def stub(folder: Path, **programs: str) -> None:
    """Shell scripts that stand in for programs, where `folder` comes first in PATH."""
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)


def worker(rank: int, mark: str) -> int:
    """The process of this rank among those that have `mark` in their environment."""
    found, wanted = [], {f"RANK={rank}".encode(), f"MARK={mark}".encode()}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is somebody else's
            continue
        found += [int(process.name)] if wanted <= set(words) else []
    return min(found)  # it came before its own children


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds its worker in /proc")
def test_node_sh_starts_again_after_a_killed_worker_and_goes_on(tmp_path):
    """What the script promises, with the one restart that it asks of torchrun by itself."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    save_problems(load_problems(ROOT / "data" / "test_signs.jsonl")[:2], tmp_path / "asked.jsonl")
    stub(tmp_path, python="exit 0")  # the plan; torchrun and its workers are this environment's
    options = [*SMALL, "--rollouts", "4", "--minibatches", "1", "--checkpoint-every", "1"]
    run = tmp_path / "runs" / "killed"
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            ["sh", LAUNCH / "node.sh", "cpu", "--name", "killed", *options],
            cwd=tmp_path, stdout=said, stderr=said,
            env=environment(
                f"{tmp_path}:{BIN}", PROCESSES="2", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="",
                MARK=str(tmp_path),
            ),
        )  # fmt: skip
    try:
        while not Run(run).checkpoints and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, (tmp_path / "said").read_text()[-3000:]
        victim = worker(1, str(tmp_path))
        words = Path(f"/proc/{victim}/environ").read_bytes().split(b"\0")
        assert b"TORCHELASTIC_USE_AGENT_STORE=False" in words, "the dead leave their addresses behind"
        os.kill(victim, signal.SIGKILL)
        started_at = (run / "eval_base.npz").stat().st_mtime_ns
        assert not (run / "eval_final.npz").exists(), "it was killed too late"
        assert process.wait(timeout=900) == 0, (tmp_path / "said").read_text()[-3000:]
    finally:
        process.terminate()
    assert "exitcode: -9" in (tmp_path / "said").read_text()
    assert json.loads((run / "summary.json").read_text())["steps"] == 4
    steps = [row["step"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]
    assert steps == [1, 2, 3, 4], "each step once"
    # The base is measured at the very beginning: the run did not begin a second time.
    assert (run / "eval_base.npz").stat().st_mtime_ns == started_at


@pytest.mark.parametrize(("script", "shell"), [("node.sh", "sh"), ("slurm.sbatch", "bash")])
def test_overwrite_is_refused_where_a_restart_would_obey_it_again(script, shell, tmp_path):
    stub(tmp_path, **dict.fromkeys(("torchrun", "srun", "scontrol", "python"), "echo started"))
    done = subprocess.run(
        [shell, LAUNCH / script, "cpu", "--name", "mine", "--overwrite"], capture_output=True,
        text=True, env=environment(tmp_path),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "delete the checkpoint" in done.stderr and "give --name" in done.stderr


def test_node_sh_ends_before_torchrun_where_the_plan_refuses(tmp_path):
    stub(tmp_path, torchrun="echo started", python='echo "$@"; exit 2')
    done = subprocess.run(
        ["sh", LAUNCH / "node.sh", "qwen2.5-7b-8gpu"], capture_output=True, text=True,
        env=environment(tmp_path),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout.split() == "-m r1lab plan --preset qwen2.5-7b-8gpu".split()


@pytest.mark.parametrize(
    ("nodes", "preset", "command"),
    [(["alpha"], "qwen2.5-7b-8gpu", "zero"), (["alpha", "beta"], "qwen2.5-7b-2nodes", "zero"),
     (["alpha"], "openr1-1.5b", "sft")],
)  # fmt: skip
def test_slurm_starts_the_same_torchrun_on_every_node(nodes, preset, command, tmp_path):
    """srun runs its command once a node, as --ntasks-per-node=1 asks; each meets at the first."""
    stub(
        tmp_path,
        scontrol='[ "$*" = "show hostnames NODES" ] || exit 3\nprintf "%s\\n" ' + " ".join(nodes),
        srun='for node in $(scontrol show hostnames NODES); do printf "%s\\n" "$@" > $node.line; done\n'
        "echo $TORCH_ELASTIC_SHUTDOWN_TIMEOUT $SRUN_CPUS_PER_TASK"
        " $TORCH_DISABLE_SHARE_RDZV_TCP_STORE > handed",
        python='echo "$@" > plan.line',
    )  # fmt: skip
    options = ["--name", "a run", "--rollouts", "5"]
    subprocess.run(
        ["bash", LAUNCH / "slurm.sbatch", preset, *options], cwd=tmp_path, check=True,
        env=environment(
            tmp_path, SLURM_JOB_NODELIST="NODES", SLURM_NNODES=str(len(nodes)), SLURM_JOB_ID="77",
            SLURM_CPUS_PER_TASK="32", **({"COMMAND": command} if command != "zero" else {}),
        ),
    )  # fmt: skip
    assert (tmp_path / "plan.line").read_text().split() == f"-m r1lab plan --preset {preset}".split()
    lines = [(tmp_path / f"{node}.line").read_text().splitlines() for node in nodes]
    assert all(line == lines[0] for line in lines) and lines[0][0] == "torchrun"
    given = get_args_parser().parse_args(lines[0][1:])  # torchrun itself knows every option
    assert (given.nnodes, given.nproc_per_node) == (str(len(nodes)), "gpu")
    assert (given.rdzv_backend, given.rdzv_id, given.rdzv_endpoint) == ("c10d", "77", "alpha:29500")
    assert given.module and given.training_script == "r1lab"
    assert (tmp_path / "handed").read_text().split() == ["240", "32", "1"]
    assert given.training_script_args == [command, "--preset", preset, *options]


def test_slurm_signals_early_enough_for_the_run_to_save():
    """Slurm tells the run at its last 300 seconds; torchrun kills what has not ended after 240."""
    text = (LAUNCH / "slurm.sbatch").read_text()
    assert "#SBATCH --signal=TERM@300" in text and "SHUTDOWN_TIMEOUT=240" in text
    assert "#SBATCH --ntasks-per-node=1" in text
    assert "#SBATCH --mem=0" in text, "all of a machine's memory: each process loads the model whole"


def test_the_container_is_made_of_files_that_exist():
    """Not built here: what it copies, installs and starts is at least there."""
    lines = (LAUNCH / "Containerfile").read_text().splitlines()
    (start,) = [json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith("ENTRYPOINT")]
    assert start[0] == "sh" and (ROOT / start[1]).samefile(LAUNCH / "node.sh")
    (install,) = [line for line in lines if "pip install" in line]
    assert f"-c {VLLM_LOCK}" in install and "-e '.[gpu]'" in install, "--sampler vllm works inside"
    tested = re.search(r"Python (\d\.\d+)", (ROOT / VLLM_LOCK).read_text())[1]
    (image,) = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert image == f"python:{tested}-slim", "the version that those pins are tested with"
    text = "\n".join(lines)
    assert "podman run" in text and "qwen2.5-1.5b-8gpu" in text
    assert all(f":{folder}" in text for folder in ("/lab/runs", "/root/.cache/huggingface"))


def test_the_image_holds_neither_the_history_nor_what_git_ignores():
    """git's patterns without a leading slash hold in every folder; in .dockerignore, with **/."""
    ignored = {name: (ROOT / name).read_text().splitlines() for name in (".gitignore", ".dockerignore")}
    left_out = {line for line in ignored[".dockerignore"] if not line.startswith("#")}
    everywhere = {line.removeprefix("**/") for line in left_out}
    assert ".git" in left_out
    for line in ignored[".gitignore"]:
        name = line.strip("/")
        assert name in (left_out if line.startswith("/") else everywhere), line
