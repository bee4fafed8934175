"""What a result depends on, as one hash: code, configuration, base, problems."""

import ast
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

from r1lab.errors import InputError
from r1lab.task import SHIPPED
from r1lab.training.config import GRPOConfig

PACKAGE = Path(__file__).resolve().parents[1]
# Rooms that show results or start runs, and cannot change one.
WITHOUT_EFFECT = ("lab", "report", "claims", "cli", "doctor", "launch")


def job_key(code: str, config: GRPOConfig) -> str:
    """The key of a run: equal keys mean that running again would give the same result.

    Made of `code` (what `code_key` gave), the settings, the base model and the held-out problems:
    those of the run, and of all test sets, which no run trains on. Raises InputError where one of
    the files is missing.
    """
    problems = [Path(config.eval_file), *held_out_files()]
    return experiment_key(code, config, [config.model], problems)


def held_out_files() -> list[Path]:
    """The files behind `task.held_out_ids`."""
    return sorted(SHIPPED.glob("test_*.jsonl"))


def experiment_key(
    code: str, config: object, models: Sequence[str], problems: Sequence[Path]
) -> str:
    """As `job_key`, of settings that do not themselves name all models and problems."""
    missing = [path for path in problems if not path.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: no such file of problems; restore it.")
    settings = json.dumps(asdict(config), sort_keys=True)
    bases = [base_key(Path(model)) for model in models]
    return _hash(code, settings, *bases, *(path.read_bytes() for path in problems))


def code_key(entry: str, package: Path = PACKAGE) -> str:
    """Hash of a module and of all of the package that it imports, directly or not.

    Comments, docstrings and layout do not count; nor does code that the module never imports.
    """
    pending, sources = [entry], {}
    while pending:
        module = pending.pop()
        path = _source(module, package)
        if module in sources or path is None or _room(module) in WITHOUT_EFFECT:
            continue
        inside = module if path.name == "__init__.py" else module.rpartition(".")[0]
        imports, sources[module] = _parsed(path.read_text(encoding="utf-8"), inside)
        pending += imports
    return _hash(*(f"{module}\n{sources[module]}" for module in sorted(sources)))


@cache
def _parsed(source: str, package: str) -> tuple[list[str], str]:
    """What a module's source imports, and its code without docstrings and comments."""
    tree = ast.parse(source)
    return list(_imports(tree, package)), ast.unparse(_without_docstrings(tree))


def base_key(base: Path) -> str:
    """Hash of the weights, settings and tokenizer in a model's folder.

    "no model" where the folder holds no weights: nothing was or can be run from it.
    """
    files = sorted([*base.glob("*.safetensors"), *base.glob("*.json")])
    if not any(file.suffix == ".safetensors" for file in files):
        return "no model"
    return _hash(*(f"{file.name}\n{_hash(file.read_bytes())}" for file in files))


def _room(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Every module that the code may load, and the packages that hold it: those run as well."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{start}.{alias.name}" for alias in node.names]
        for parts in (name.split(".") for name in names):
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _source(module: str, package: Path) -> Path | None:
    """The file of a module of this package; None for other packages and for names in a module."""
    if module.split(".")[0] != package.name:
        return None
    path = package.parent.joinpath(*module.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
    return tree


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]
