"""What a result depends on, as one hash: the settings in plain words, the bases, the problems.

Code is not in it. Whoever changes what a run computes raises its number in VERSIONS by hand; the
golden record (`tests/golden`) says whether a change of code did that.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1lab.errors import InputError
from r1lab.files import SHIPPED

# Of an arm or an experiment, where it is not 1.
VERSIONS: dict[str, int] = {}


def result_key(name: str, settings: dict[str, Any], models: Sequence[str]) -> str:
    """Equal keys mean that running again would give the same result.

    Made of the name and its version, the settings (anything that JSON holds), the weights it starts
    from, and all test sets: a run is measured on some of them and trains on none.

    Raises:
        InputError: there is no test set.
    """
    problems = sorted(SHIPPED.glob("test_*.jsonl"))
    if not problems:
        raise InputError(f"{SHIPPED} holds no test_*.jsonl; restore the test sets.")
    plain = {key: _without_folder(value) for key, value in settings.items()}
    about = {"name": name, "version": VERSIONS.get(name, 1), "settings": plain}
    described = json.dumps(about, sort_keys=True)
    bases = [base_key(Path(model)) for model in models]
    return _hash(described, *bases, *(path.read_bytes() for path in problems))


def base_key(base: Path) -> str:
    """Hash of the weights, settings and tokenizer in a model's folder.

    "no model" where the folder holds no weights: nothing was or can be run from it.
    """
    weights = sorted(base.glob("*.safetensors"))
    if not weights:
        return "no model"
    others = [base / name for name in ("config.json", "tokenizer.json")]
    files = [*weights, *(file for file in others if file.is_file())]
    return _hash(*(f"{file.name}\n{_hash(file.read_bytes())}" for file in files))


def _without_folder(value: Any) -> Any:
    """Of a path its last name: what lies there counts by its contents, wherever it is moved."""
    return Path(value).name if isinstance(value, str) and "/" in value else value


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]
