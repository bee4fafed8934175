"""The base models of the small world: their tokenizer, their architecture, and how they are made (stage 0).

The tokenizer has words, digits, symbols and Chinese characters, one token each. Spaces carry no
information here: encoding drops them, decoding puts them where people do (between words, not between
digits and symbols), so that ids -> text -> ids is exact.
"""

import itertools
import re
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from r1lab.files import write_json, write_text
from r1lab.models.policy import load_model, save_model
from r1lab.run import Run
from r1lab.sources.templates import TEMPLATES
from r1lab.training.processes import compute
from r1lab.training.supervised import Document, SupervisedConfig, train_supervised
from r1lab.world import FAMILIES, words
from r1lab.world.corpus import CORPUS, EARLY_CORPUS, CorpusConfig, describe, documents

END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"
RESERVED = tuple(f"<|reserved_{i}|>" for i in range(32))
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "User", "Assistant")
SYMBOLS = tuple("0123456789+-*/=(),:.;?!<>[]%")
PIECES = pre_tokenizers.Split(
    Regex(r"</?[a-z]+>|<\|[a-z0-9_]+\|>|\p{Han}|[a-zA-ZÀ-ÿ]+|[^\s]"), behavior="isolated"
)


def vocabulary() -> list[str]:
    """List all tokens, in the order of their ids. Later stages use the reserved ones."""
    spoken = [word for lang in words.LANGS for word in sorted(words.WORDS_BY_LANG[lang])]
    questions = [text for family in FAMILIES.values() for text in family.questions.values()]
    pieces = PIECES.pre_tokenize_str(re.sub(r"\{\w+\}", " ", " ".join(questions)))
    asked = [piece for piece, _ in pieces if piece.strip()]
    special = (PAD, END, UNKNOWN, *RESERVED)
    every = (*special, *TAGS, *SYMBOLS, *spoken, *asked, *words.OTHER_WORDS)
    return list(dict.fromkeys(every))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer from the vocabulary alone: it is not trained."""
    vocab = {token: index for index, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), PIECES])
    tight = r"[0-9+\-*/=(),:.;?!%\[\]\p{Han}]"  # written without a space between each other
    after_speaker = r"(?<!User :)(?<!Assistant :)"
    no_space = rf"{after_speaker}(?<={tight}) (?={tight})| (?=[,:.?!])"
    joined = decoders.WordPiece(prefix="##", cleanup=False)  # with spaces
    parts = [joined, decoders.Fuse(), decoders.Replace(Regex(no_space), "")]
    tokenizer.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False, model_input_names=["input_ids", "attention_mask"],
        chat_template=TEMPLATES["small"]["text"].replace("{prompt}", "{{ messages[-1]['content'] }}")
    )  # fmt: skip


Architecture = Literal["qwen2", "llama"]
SIZES = {"base": (128, 4), "small": (64, 4), "tiny": (32, 2)}  # channels, layers
MAX_POSITIONS = 512


def build_model(size: str, vocab_size: int, architecture: Architecture = "qwen2") -> PreTrainedModel:
    """Make a freshly initialised model; heads of 32 channels, two query heads to a key head.

    Llama's is Qwen2's without the biases of queries, keys and values.
    """
    channels, layers = SIZES[size]
    heads = channels // 32
    config = AutoConfig.for_model(
        architecture, vocab_size=vocab_size, hidden_size=channels, intermediate_size=2 * channels,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=max(1, heads // 2),
        max_position_embeddings=MAX_POSITIONS, tie_word_embeddings=True, initializer_range=0.05,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        pad_token_id=0, bos_token_id=None, eos_token_id=1  # the vocabulary begins with PAD and END
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


@dataclass(frozen=True)
class PretrainConfig(SupervisedConfig):
    """How a base is made.

    Attributes:
        size, architecture: of the model, see `build_model`.
        corpora: (from step, shares of behaviors).
    """

    steps: int = 4_000
    size: str = "base"
    architecture: Architecture = "qwen2"
    corpora: tuple[tuple[int, CorpusConfig], ...] = ((0, EARLY_CORPUS), (2_400, CORPUS))


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
        corpora=tuple((start, replace(one, restate_target=False)) for start, one in PretrainConfig.corpora)
    ),
}


def step_documents(config: PretrainConfig, step: int, tokenizer) -> list[Document]:
    """Write the documents of one step, keyed by (seed, step) alone."""
    pairs, total = [], 0
    corpus = [corpus for start, corpus in config.corpora if start <= step][-1]
    stream = documents(corpus, f"{config.seed}/{step}")
    while total < config.tokens_per_step:
        texts = zip(*itertools.islice(stream, 64))  # many at once: ten times as fast
        asked, written = (tokenizer(part).input_ids for part in texts)
        for prompt, completion in zip(asked, written):
            completion = [*completion, tokenizer.eos_token_id]
            size = len(prompt) + len(completion)
            if size <= MAX_POSITIONS:
                pairs.append((prompt, completion))
                total += size
    return pairs


def pretrain(world, stop, run: Run, config: PretrainConfig) -> bool:
    """Do one process's share of training, from scratch or from the run's last checkpoint on.

    False: the user stopped it, and the run is saved.
    """
    tokenizer = build_tokenizer()
    torch.manual_seed(config.seed)
    model = build_model(config.size, len(tokenizer), config.architecture)
    of_step = partial(step_documents, config, tokenizer=tokenizer)
    return train_supervised(world, stop, run, config, model, tokenizer, of_step)


def run_pretrain(config: PretrainConfig, name: str, out: Path, runs: Path = Path("runs")) -> Path:
    """Pre-train in `runs/name` (or go on there) and write the model to `out` as bfloat16.

    Raises:
        KeyboardInterrupt: the user stopped it; the run is saved and the same command goes on.
    """
    run = Run(runs / name)
    compute(run, config, pretrain, config.processes, config)
    model, tokenizer = load_model(run.model)
    save_model(model.to(torch.bfloat16), tokenizer, out)
    known = (preset for preset, made in PRETRAIN_PRESETS.items() if made == config)
    card = Path(__file__).with_name("card.md").read_text(encoding="utf-8").format(
        architecture=type(model).__name__, weights=model.num_parameters(), vocabulary=len(tokenizer),
        tokens=config.steps * config.tokens_per_step / 1e6, preset=next(known, "(changed)"),
        shares=describe(dict(config.corpora))
    )  # fmt: skip
    write_text(out / "README.md", card)
    write_json(out / "pretrain.json", asdict(config))
    return out
