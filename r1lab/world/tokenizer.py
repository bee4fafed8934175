"""The small world's tokenizer: words, digits, symbols and Chinese characters, one token each.

Spaces carry no information here: encoding drops them, decoding puts them where people do
(between words, not between digits and symbols), so that ids -> text -> ids is exact. Saved in
Hugging Face format, it loads with `PreTrainedTokenizerFast`; `AutoTokenizer` would make another
tokenizer of it, by the architecture in the model's folder.
"""

import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from r1lab.sources.templates import TEMPLATES
from r1lab.world import FAMILIES, words

END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"
RESERVED = tuple(f"<|reserved_{i}|>" for i in range(32))
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "User", "Assistant")
SYMBOLS = tuple("0123456789+-*/=(),:.;?!<>[]%")


def vocabulary() -> list[str]:
    """All tokens, in the order of their ids. Later stages use the reserved ones."""
    spoken = [word for lang in words.LANGS for word in sorted(words.WORDS_BY_LANG[lang])]
    questions = [text for family in FAMILIES.values() for text in family.questions.values()]
    asked = _split(re.sub(r"\{\w+\}", " ", " ".join(questions)))
    rest = (
        *words.LOGIC_WORDS, *words.PROGRAM_WORDS, *words.NAMES, *words.TOPICS, *words.CHAT_WORDS,
        *words.UNSAFE_TOPICS, *words.UNSAFE_WORDS, *words.STAGE_WORDS, *words.STAGE_WORDS_ZH,
        *words.STAGE_WORDS_FR,
    )  # fmt: skip
    special = (PAD, END, UNKNOWN, *RESERVED)
    return list(dict.fromkeys((*special, *TAGS, *SYMBOLS, *spoken, *asked, *rest)))


_PIECES = r"</?[a-z]+>|<\|[a-z0-9_]+\|>|\p{Han}|[a-zA-ZÀ-ÿ]+|[^\s]"


def _split(text: str) -> list[str]:
    splitter = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    return [piece for piece, _ in splitter.pre_tokenize_str(text) if piece.strip()]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, from the vocabulary alone: it is not trained."""
    vocab = {token: index for index, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
        ]
    )
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
        chat_template=TEMPLATES["small"].replace("{prompt}", "{{ messages[-1]['content'] }}"),
    )
