"""The configurations of the small world's models: Qwen2, or Llama, in everything but size."""

from typing import Literal

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

Architecture = Literal["qwen2", "llama"]
ARCHITECTURES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM),
}  # fmt: skip

SIZES = {
    "base": dict(hidden_size=128, intermediate_size=256, num_hidden_layers=4),
    "small": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=4),
    "tiny": dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2),
}
MAX_POSITIONS = 512


def build_model(
    size: str, vocab_size: int, pad_id: int, eos_id: int, architecture: Architecture = "qwen2"
) -> PreTrainedModel:
    """A freshly initialised model; heads of 32 channels, two query heads to a key head.

    Llama's is Qwen2's without the biases of queries, keys and values.
    """
    config, model = ARCHITECTURES[architecture]
    dims = SIZES[size]
    heads = max(1, dims["hidden_size"] // 32)
    return model(
        config(
            vocab_size=vocab_size,
            **dims,
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
    )
