"""Pre-training of the small world's base models on the generated corpus (stage 0), and their cards."""

import itertools
import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from r1lab.files import write_text
from r1lab.models.policy import load_model
from r1lab.training.distributed import World
from r1lab.training.processes import StopRequest, compute, default_processes
from r1lab.run import Run
from r1lab.training.supervised import Document, SupervisedConfig, train_supervised
from r1lab.world.bases import MAX_POSITIONS, Architecture, build_model, build_tokenizer
from r1lab.world.corpus import CORPUS, EARLY_CORPUS, CorpusConfig, describe, documents


@dataclass(frozen=True)
class PretrainConfig(SupervisedConfig):
    """How a base is made.

    Attributes:
        size, architecture: of the model, see `world.bases`.
        corpora: (from step, shares of behaviors).
    """

    steps: int = 4_000
    size: str = "base"
    architecture: Architecture = "qwen2"
    corpora: tuple[tuple[int, CorpusConfig], ...] = ((0, EARLY_CORPUS), (2_400, CORPUS))

    def corpus(self, step: int) -> CorpusConfig:
        return [corpus for start, corpus in self.corpora if start <= step][-1]


# R1's student: with skills of its own, at a quarter of the weights.
SMALL = PretrainConfig(size="small", steps=1_600, corpora=((0, EARLY_CORPUS), (960, CORPUS)))
PRETRAIN_PRESETS = {
    "base": PretrainConfig(),
    # The two controls: a model too small to have the skills, and one whose verdicts are weak
    # because the target is not restated before them.
    "tiny": PretrainConfig(size="tiny"),
    "small": SMALL,
    "llama": replace(SMALL, architecture="llama"),
    "noskill": PretrainConfig(
        corpora=(
            (0, replace(EARLY_CORPUS, restate_target=False)),
            (2_400, replace(CORPUS, restate_target=False)),
        )
    ),
}


def step_documents(config: PretrainConfig, step: int, tokenizer) -> list[Document]:
    """The documents of one step, keyed by (seed, step) alone."""
    pairs, total = [], 0
    stream = documents(config.corpus(step), f"{config.seed}/{step}")
    while total < config.tokens_per_step:
        for texts in itertools.islice(stream, 64):
            prompt, completion = tokenizer(list(texts)).input_ids
            completion = [*completion, tokenizer.eos_token_id]
            size = len(prompt) + len(completion)
            if size <= MAX_POSITIONS:
                pairs.append((prompt, completion))
                total += size
    return pairs


def pretrain(world: World, stop: StopRequest, run: Run, config: PretrainConfig) -> bool:
    """One process's share of training from scratch, or on from the run's last checkpoint.

    False: the user stopped it, and the run is saved.
    """
    tokenizer = build_tokenizer()
    torch.manual_seed(config.seed)
    ends = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    model = build_model(config.size, len(tokenizer), *ends, config.architecture)
    of_step = partial(step_documents, config, tokenizer=tokenizer)
    return train_supervised(world, stop, run, config, model, tokenizer, of_step)


def run_pretrain(config: PretrainConfig, name: str, out: Path, runs: Path = Path("runs")) -> Path:
    """Pre-train in `runs/name` (or go on there) and write the model to `out` as bfloat16.

    Raises:
        KeyboardInterrupt: the user stopped it; the run is saved and the same command goes on.
    """
    run = Run(runs / name)
    processes = config.processes or default_processes()
    compute(run, config, pretrain, processes, config, parallel=config.parallel)
    model, tokenizer = load_model(run.model)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    known = (preset for preset, made in PRETRAIN_PRESETS.items() if made == config)
    card = CARD.format(
        architecture=type(model).__name__, weights=model.num_parameters(), vocabulary=len(tokenizer),
        tokens=config.steps * config.tokens_per_step / 1e6, preset=next(known, "(changed)"),
        shares=describe(dict(config.corpora)),
    )  # fmt: skip
    write_text(out / "README.md", card)
    write_text(out / "pretrain.json", json.dumps(asdict(config), indent=1) + "\n")
    return out


CARD = """# A base model of r1lab's small world

`{architecture}` with {weights:,} parameters and {vocabulary} tokens (words, digits, Chinese
characters), pre-trained from scratch on {tokens:.0f} million tokens of a generated corpus. Weights
are stored as bfloat16 and used as float32. Licence: Apache-2.0. It knows nothing of the real world.

Made by `r1lab pretrain --preset {preset}`; `pretrain.json` holds every setting.

Load it with `r1lab.models.load_model`, or with `PreTrainedTokenizerFast` and
`AutoModelForCausalLM`: in transformers 5, `AutoTokenizer` gives every model of type qwen2 the
byte-level tokenizer of Qwen2, whatever its folder says.

## Shares of the corpus

{shares}
"""
