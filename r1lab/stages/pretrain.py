"""Stage 0: the base model of the small world, and the card that goes with it."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from r1lab.models.policy import load_model
from r1lab.world.corpus import describe
from r1lab.training.checkpoint import list_checkpoints
from r1lab.training.distributed import default_processes, run_workers, under_torchrun
from r1lab.training.pretrain import PRETRAIN_PRESETS, PretrainConfig, pretrain
from r1lab.training.run import STOPPED
from r1lab.training.runs import write_atomically


def run_pretrain(config: PretrainConfig, name: str, out: Path, runs: Path = Path("runs")) -> Path:
    """Pre-train in `runs/name` (or go on there) and write the model to `out` as bfloat16.

    Raises:
        KeyboardInterrupt: the user stopped it; the run is saved and the same command goes on.
    """
    run = runs / name
    if under_torchrun():
        code = _worker(config, run)
    else:
        code = run_workers(_worker, config.processes or default_processes(), config, run)
    if code == STOPPED:
        raise KeyboardInterrupt
    model, tokenizer = load_model(list_checkpoints(run)[-1])
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_atomically(out / "README.md", model_card(config, model, len(tokenizer)))
    write_atomically(out / "pretrain.json", json.dumps(asdict(config), indent=1) + "\n")
    return out


def _worker(config: PretrainConfig, run: Path) -> int:
    return 0 if pretrain(config, run) else STOPPED


def model_card(config: PretrainConfig, model, vocabulary: int) -> str:
    """What the base is, how it was made, and what its corpus holds."""
    tables = [describe(corpus) for _, corpus in config.corpora]
    shares = zip(*([share for *_, share in table] for table in tables), strict=True)
    rows = "\n".join(
        f"| {what} | {outcome} | {' | '.join(values)} |"
        for (what, outcome, _), values in zip(tables[0], shares, strict=True)
    )
    starts = " | ".join(f"from step {start}" for start, _ in config.corpora)
    tokens = config.steps * config.tokens_per_step / 1e6
    return f"""# A base model of r1lab's small world

`{type(model).__name__}` with {model.num_parameters():,} parameters and {vocabulary} tokens (words, digits, Chinese
characters), pre-trained from scratch on {tokens:.0f} million tokens of a generated corpus. Weights
are stored as bfloat16 and used as float32. Licence: Apache-2.0. It knows nothing of the real world.

Made by `r1lab pretrain --preset {_preset_of(config)}`; `pretrain.json` holds every setting.

Load it with `r1lab.models.load_model`, or with `PreTrainedTokenizerFast` and
`AutoModelForCausalLM`: in transformers 5, `AutoTokenizer` gives every model of type qwen2 the
byte-level tokenizer of Qwen2, whatever its folder says.

## Shares of the corpus

| what | outcome | {starts} |
|---|---|{"---|" * len(config.corpora)}
{rows}
"""


def _preset_of(config: PretrainConfig) -> str:
    names = [name for name, preset in PRETRAIN_PRESETS.items() if preset == config]
    return names[0] if names else "(changed)"
