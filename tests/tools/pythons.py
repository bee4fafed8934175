"""Run the tests on each supported Python that this machine has: `python3 -m tests.tools.pythons [TESTS]`.

Each has an environment of its own, `.venv-3.13` and so on, with the versions of constraints.txt. Any Python
from 3.8 on can run this file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.tools.bootstrap import ROOT, SUPPORTED

ALL = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "tests"]
# Where pyenv and uv put theirs.
HOMES = (Path.home() / ".pyenv/versions", Path.home() / ".local/share/uv/python")


def find_python(version: str) -> str | None:
    """Find a working interpreter of a version such as "3.13": on PATH, else where HOMES say."""
    name = f"python{version}"
    places = [shutil.which(name), *(path for home in HOMES for path in sorted(home.glob(f"*/bin/{name}")))]
    for place in filter(None, places):
        if subprocess.run([place, "-c", "import venv"], capture_output=True).returncode == 0:
            return str(place)
    return None


def run_tests(version: str, python: str, tests: list[str]) -> str:
    """Install r1lab for this Python and run the tests; how that ended, in a few words."""
    venv = f".venv-{version}"
    environment = dict(os.environ, PYTHON=python, VENV=venv)
    install = [sys.executable, "-m", "tests.tools.bootstrap", "test"]
    if subprocess.run(install, cwd=ROOT, env=environment).returncode:
        return "not installed, see above"
    command = [str(ROOT / venv / "bin/python"), "-m", "pytest", "-q", *(tests or ALL)]
    return "failed, see above" if subprocess.run(command, cwd=ROOT).returncode else "passed"


def main(tests: list[str]) -> int:
    """Print a line for each version. 1 where one failed; a missing one is only named."""
    ends = {}
    for version in SUPPORTED:
        python = find_python(version)
        print(f"Python {version}: {python or 'missing'}", flush=True)
        ends[version] = run_tests(version, python, tests) if python else "missing on this machine"
    print(*(f"Python {version}: {end}" for version, end in ends.items()), sep="\n")
    return int(any(end.startswith(("failed", "not")) for end in ends.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
