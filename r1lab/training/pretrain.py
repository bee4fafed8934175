"""Pre-training of the small world's base models on the generated corpus."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from r1lab.world.bases import MAX_POSITIONS, Architecture, build_model
from r1lab.world.tokenizer import build_tokenizer
from r1lab.world.corpus import CORPUS, EARLY_CORPUS, CorpusConfig, documents
from r1lab.training.supervised import Document, SupervisedConfig, train_supervised


@dataclass(frozen=True)
class PretrainConfig(SupervisedConfig):
    """How a base is made.

    Attributes:
        size, architecture: of the model, see `models.small`.
        corpora: (from step, shares of behaviours).
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
        chunk = list(itertools.islice(stream, 64))
        prompts = tokenizer([prompt for prompt, _ in chunk]).input_ids
        completions = tokenizer([completion for _, completion in chunk]).input_ids
        for prompt, completion in zip(prompts, completions, strict=True):
            completion = [*completion, tokenizer.eos_token_id]
            if len(prompt) + len(completion) <= MAX_POSITIONS:
                pairs.append((prompt, completion))
                total += len(prompt) + len(completion)
    return pairs


def pretrain(config: PretrainConfig, run: Path) -> bool:
    """Train from scratch, or on from the run's last checkpoint. True when finished."""
    tokenizer = build_tokenizer()
    torch.manual_seed(config.seed)
    model = build_model(
        config.size, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id,
        config.architecture,
    )  # fmt: skip
    return train_supervised(
        config, run, model, tokenizer, lambda step: step_documents(config, step, tokenizer)
    )
