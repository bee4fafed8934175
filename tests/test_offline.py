"""`make offline`: a folder that installs without a network, tried on a small package with the network off."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.tools import offline

# A stand-in for r1lab: its command says what it was asked.
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "r1lab"
version = "1"
dependencies = ["torch", "small"]
[project.scripts]
r1lab = "stand_in:main"
[tool.setuptools]
py-modules = ["stand_in"]
"""
MODULE = """
import sys
import small, torch
def main():
    print("asked:", *sys.argv[1:])
"""
CLOSED = "http://127.0.0.1:9"  # nothing listens there


def write_wheel(folder: Path, name: str, version: str) -> None:
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", f"{name}.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """The folder, packed from a registry that is a folder, too."""
    project, registry = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("registry")
    pinned = re.search("^torch==(.+)$", (offline.ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)[1]
    for name, version in {"torch": pinned, "small": "1"}.items():
        write_wheel(registry, name, version)
    for name, text in {"pyproject.toml": PROJECT, "stand_in.py": MODULE, "constraints.txt": "small==1\n"}.items():
        (project / name).write_text(text, encoding="utf-8")
    (project / "book").mkdir()
    (project / "book/index.html").write_text("a book", encoding="utf-8")
    out = tmp_path_factory.mktemp("Übung für 学生") / "off line"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(registry), "PIP_NO_BUILD_ISOLATION": "false"}.items():
            patch.setenv(name, value)
        offline.pack(out, project, project / "book")
    return out


def install(script: Path, target: Path, **more: str) -> subprocess.CompletedProcess:
    """Run the script where no network is: in a namespace without one, or else behind a closed door."""
    shut = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*shut, "true"], capture_output=True).returncode:
        shut = []
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    clean |= {"http_proxy": CLOSED, "https_proxy": CLOSED, "PYTHON": sys.executable} | more
    command = [*shut, "sh", str(script), str(target)]
    return subprocess.run(command, cwd=script.parents[1], env=clean, capture_output=True, text=True)


def test_the_folder_holds_the_wheels_the_book_and_one_command(packed):
    assert {path.name.split("-")[0] for path in (packed / "wheels").iterdir()} == {"torch", "small", "r1lab"}
    assert (packed / "book/index.html").is_file() and (packed / "install.sh").is_file()


def test_it_installs_without_a_network_in_a_folder_of_any_name(packed, tmp_path):
    target = tmp_path / "Schüler 1"
    done = install(packed / "install.sh", target)
    assert done.returncode == 0, done.stderr
    assert "asked: lab --copy-only" in done.stdout
    assert subprocess.run([target / ".venv/bin/python", "-c", "import torch, small, stand_in"]).returncode == 0


@pytest.mark.parametrize("python", ["no-such-python", "false"])
def test_another_python_is_refused_in_a_sentence(packed, tmp_path, python):
    done = install(packed / "install.sh", tmp_path / "x", PYTHON=python)
    assert done.returncode == 2 and done.stderr.startswith(f"r1lab: {python} will not do: this folder is for Python 3.")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_written_is_refused_in_a_sentence(packed, tmp_path):
    (tmp_path / "file").touch()
    done = install(packed / "install.sh", tmp_path / "file" / "x")
    assert done.returncode == 2 and "give another folder" in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_wheel_is_named_and_remedied(packed, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(packed, part)
    next((part / "wheels").glob("small*")).unlink()
    done = install(part / "install.sh", tmp_path / "x")
    assert done.returncode == 2 and "small" in done.stderr and "copy the folder again" in done.stderr


def test_without_the_book_it_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(offline, "install_torch", lambda *_: None)
    monkeypatch.setattr(offline, "fetch", lambda *_: None)
    offline.pack(tmp_path / "out", tmp_path, tmp_path / "book")
    assert "make book writes it" in capsys.readouterr().out and (tmp_path / "out/install.sh").is_file()
