"""What the small world's models are made of: a tokenizer, and Qwen2 or Llama in everything but size.

The tokenizer has words, digits, symbols and Chinese characters, one token each. Spaces carry no
information here: encoding drops them, decoding puts them where people do (between words, not between
digits and symbols), so that ids -> text -> ids is exact. Saved in Hugging Face format, it loads with
`PreTrainedTokenizerFast`; `AutoTokenizer` would make another tokenizer of it, by the architecture in
the model's folder.
"""

import re
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from r1lab.sources.templates import TEMPLATES
from r1lab.world import FAMILIES, words

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
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),  # joins with spaces
            decoders.Fuse(),
            decoders.Replace(Regex(no_space), ""),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        chat_template=TEMPLATES["small"]["text"].replace("{prompt}", "{{ messages[-1]['content'] }}"),
    )


Architecture = Literal["qwen2", "llama"]
SIZES = {"base": (128, 4), "small": (64, 4), "tiny": (32, 2)}  # channels, layers
MAX_POSITIONS = 512


def build_model(
    size: str, vocab_size: int, pad_id: int, eos_id: int, architecture: Architecture = "qwen2"
) -> PreTrainedModel:
    """Make a freshly initialised model; heads of 32 channels, two query heads to a key head.

    Llama's is Qwen2's without the biases of queries, keys and values.
    """
    channels, layers = SIZES[size]
    heads = channels // 32
    config = AutoConfig.for_model(
        architecture,
        vocab_size=vocab_size,
        hidden_size=channels,
        intermediate_size=2 * channels,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.05,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        pad_token_id=pad_id,
        bos_token_id=None,
        eos_token_id=eos_id,
    )
    return AutoModelForCausalLM.from_config(config)
