"""The launch scripts started for real: torchrun on this machine, Slurm's part played by stubs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from r1lab.evaluation.rows import read_rows
from r1lab.tasks import load_problems, save_problems
from r1lab.training.checkpoint import SHARDS, checkpoint_path

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "r1lab" / "launch"
BIN = Path(sys.executable).parent  # of this environment: python and torchrun
# One rollout of two updates on the shipped base.
TWO_STEPS = [
    "--rollouts", "1", "--minibatches", "2", "--questions", "4", "--group-size", "4", "--caps", "0", "24",
    "--eval-file", "asked.jsonl", "--final-samples", "1", "--microbatch-tokens", "512",
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
        ["sh", LAUNCH / "node.sh", "cpu", "--name", "two", "--parallel.shard", *TWO_STEPS],
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


def test_node_sh_ends_before_torchrun_where_the_plan_refuses(tmp_path):
    (tmp_path / "torchrun").write_text("#!/bin/sh\necho started\n")
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"; exit 2\n')
    for stub in ("torchrun", "python"):
        (tmp_path / stub).chmod(0o755)
    done = subprocess.run(
        ["sh", LAUNCH / "node.sh", "qwen2.5-7b-8gpu"], capture_output=True, text=True,
        env=environment(tmp_path),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout.split() == "-m r1lab plan --preset qwen2.5-7b-8gpu".split()


@pytest.mark.parametrize(
    ("nodes", "preset"), [(["alpha"], "qwen2.5-7b-8gpu"), (["alpha", "beta"], "qwen2.5-7b-2nodes")]
)
def test_slurm_starts_the_same_torchrun_on_every_node(nodes, preset, tmp_path):
    """srun runs its command once a node, as --ntasks-per-node=1 asks; each meets at the first."""
    stubs = {
        "scontrol": '[ "$*" = "show hostnames NODES" ] || exit 3\nprintf "%s\\n" ' + " ".join(nodes),
        "srun": 'for node in $(scontrol show hostnames NODES); do printf "%s\\n" "$@" > $node.line; done\n'
        'printf $TORCH_ELASTIC_SHUTDOWN_TIMEOUT > waits',
        "python": 'echo "$@" > plan.line',
    }
    for name, body in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    options = ["--name", "a run", "--rollouts", "5"]
    subprocess.run(
        ["bash", LAUNCH / "slurm.sbatch", preset, *options], cwd=tmp_path, check=True,
        env=environment(
            tmp_path, SLURM_JOB_NODELIST="NODES", SLURM_NNODES=str(len(nodes)), SLURM_JOB_ID="77"
        ),
    )  # fmt: skip
    assert (tmp_path / "plan.line").read_text().split() == f"-m r1lab plan --preset {preset}".split()
    lines = [(tmp_path / f"{node}.line").read_text().splitlines() for node in nodes]
    assert all(line == lines[0] for line in lines) and lines[0][0] == "torchrun"
    told = get_args_parser().parse_args(lines[0][1:])  # torchrun itself knows every option
    assert (told.nnodes, told.nproc_per_node) == (str(len(nodes)), "gpu")
    assert (told.rdzv_backend, told.rdzv_id, told.rdzv_endpoint) == ("c10d", "77", "alpha:29500")
    assert told.module and told.training_script == "r1lab"
    assert (tmp_path / "waits").read_text() == "240"
    assert told.training_script_args == ["zero", "--preset", preset, *options]


def test_slurm_signals_early_enough_for_the_run_to_save():
    """Slurm tells the run at its last 300 seconds; torchrun kills what has not ended after 240."""
    text = (LAUNCH / "slurm.sbatch").read_text()
    assert "#SBATCH --signal=TERM@300" in text and "SHUTDOWN_TIMEOUT=240" in text
    assert "#SBATCH --ntasks-per-node=1" in text


def test_the_container_is_made_of_files_that_exist():
    """Not built here: what it copies, installs and starts is at least there."""
    lines = (LAUNCH / "Containerfile").read_text().splitlines()
    (start,) = [json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith("ENTRYPOINT")]
    assert start[0] == "sh" and (ROOT / start[1]).samefile(LAUNCH / "node.sh")
    (install,) = [line for line in lines if "pip install" in line]
    assert "-c constraints.txt" in install and (ROOT / "constraints.txt").is_file()
    (image,) = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert image.startswith("python:3.12"), "a version that r1lab.launch.bootstrap supports"
    assert any(line.startswith("#   podman run") and "qwen2.5-1.5b-8gpu" in line for line in lines)
