"""The memory that one process of a run will need, predicted before anything is loaded.

Counted from the model's shape and the run's settings, and compared with two stored runs on CPUs
(`tests/test_plan.py`); not compared with any run on a GPU yet.
"""

import math
import os
from dataclasses import dataclass

import torch
from transformers import AutoConfig, PretrainedConfig

from r1lab.errors import InputError
from r1lab.models.places import source_of
from r1lab.training.config import GRPOConfig
from r1lab.training.supervised import SupervisedConfig

Settings = GRPOConfig | SupervisedConfig
GB = 1e9
SAMPLER_ROWS = 256  # completions that the torch sampler decodes at once
HEAD_BYTES = 0.9 * GB  # workspace of the fused log-prob; all logits are never held
RUNTIME_BYTES = 1.0 * GB  # Python, its libraries and CUDA's context
PROMPT_TOKENS = 160  # of a question in its template


@dataclass(frozen=True)
class ModelShape:
    """What of a Qwen2 or Llama model decides its cost."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    qkv_bias: bool = True

    @property
    def layer_parameters(self) -> int:
        """Attention with its biases, the gated feed-forward layer, two norms."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (2 * queries + 2 * keys)
        bias = (queries + 2 * keys) * self.qkv_bias
        return attention + bias + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def root_parameters(self) -> int:
        """Embedding, head (where it is not the embedding) and the last norm."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        return self.layers * self.layer_parameters + self.root_parameters

    def kv_bytes(self, bytes_each: int) -> int:
        """Keys and values that one token leaves in the sampler's cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_each

    def layer_activations(self, bytes_each: int) -> int:
        """What one layer keeps of one token for the backward pass.

        Two norms keep their input in float32, the normalised input and the output; attention keeps
        queries, keys, values, what it found, and that once more in rows; the feed-forward layer
        four products.
        """
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        norms = 2 * self.hidden * (4 + 2 * bytes_each)
        attention = (3 * queries + 2 * keys) * bytes_each + 4 * self.heads
        return norms + attention + 4 * self.intermediate * bytes_each


def shape_of(config: PretrainedConfig) -> ModelShape:
    if hasattr(config, "num_experts_per_tok") or not hasattr(config, "num_key_value_heads"):
        raise InputError(
            f"what a {config.model_type} needs is not predicted (it has experts, or other attention "
            "than Qwen2 and Llama); with parallel.gpus 0, a run asks for no prediction."
        )
    heads = config.num_attention_heads
    return ModelShape(
        layers=config.num_hidden_layers, hidden=config.hidden_size,
        intermediate=config.intermediate_size, heads=heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size, tied=bool(config.tie_word_embeddings),
        qkv_bias=config.model_type == "qwen2",
    )  # fmt: skip


# Of the configurations on the Hub; the totals of Qwen2.5, 0.49, 1.54 and 7.61 billion, agree with
# the cards.
SHAPES = {
    "Qwen/Qwen2.5-0.5B": ModelShape(24, 896, 4_864, 14, 2, 64, 151_936, tied=True),
    "Qwen/Qwen2.5-1.5B": ModelShape(28, 1_536, 8_960, 12, 2, 128, 151_936, tied=True),
    "Qwen/Qwen2.5-7B": ModelShape(28, 3_584, 18_944, 28, 4, 128, 152_064, tied=False),
    "smollm2": ModelShape(30, 576, 1_536, 9, 3, 64, 49_152, tied=True, qkv_bias=False),
}


def shape_named(model: str) -> ModelShape:
    """The shape of a model in SHAPES, else of a folder's or the Hub's, read from its config.json.

    Raises:
        InputError: that cannot be had, or is not of a model like those.
    """
    if model in SHAPES:
        return SHAPES[model]
    source = source_of(model)
    try:
        config = AutoConfig.from_pretrained(**source)
    except (OSError, ValueError):
        raise InputError(
            f"{model}: its config.json cannot be read as that of a model like Qwen2 or Llama: no "
            "folder and no model of the Hub has this name, or the Hub is out of reach; check the "
            f"name and the network. The shapes of {', '.join(SHAPES)} are known without."
        ) from None
    return shape_of(config)


CACHE_GROWTH = 1.25  # while the torch sampler's cache grows, it is larger than what it holds
# Waiting in the host's memory with `Parallel.offload`.
HOSTED = ("weights", "gradients", "optimizer", "reference", "earlier policies", "critic")
# What only the sampler's, the hand-over's or the trainer's turn needs; the rest stays.
SAMPLING = ("vLLM's weights", "KV cache", "sampler logits")
HANDING_OVER = ("weights handed over", "vLLM's weights", "vLLM's cache")
TRAINING = ("layers together", "activations", "attention's mask", "head")
SWITCHES = ("shard", "recompute", "reduce_every", "offload")  # of `Parallel`: less memory, more time


def memory(config: Settings, shape: ModelShape, processes: int) -> dict[str, float]:
    """Predict the bytes of one process, part by part; `peak` is the largest sum at one time.

    Sampling, handing over weights, and training take turns. What is offloaded is in the host's
    memory and not in the peak. Fine-tuning samples nothing and has no reference; a row longer than
    `microbatch_tokens`, which the settings do not know of, needs more.
    """
    parallel, total = config.parallel, shape.parameters
    each = 2 if parallel.precision == "bfloat16" else 4  # bytes of a number to compute with
    stored = 4 * total / (processes if parallel.shard else 1)
    rl = isinstance(config, GRPOConfig)
    tokens = max(config.microbatch_tokens, _longest_row(config) if rl else 0)
    gathered = shape.layer_parameters + shape.root_parameters
    together = each * (shape.layer_parameters + gathered) + (each + 4) * gathered
    together += 4 * total * (not parallel.reduce_every)
    recomputed = shape.layer_activations(each)
    kept = each * shape.hidden if parallel.recompute else recomputed
    row = shape.layers * kept + parallel.recompute * recomputed + shape.hidden * (4 + 4 * each)
    parts = {"weights": stored, "gradients": stored, "optimizer": 2 * stored}
    if rl:
        parts |= _beside(config, shape, processes, stored, each)
    parts |= {
        "runtime": RUNTIME_BYTES,
        "layers together": together if parallel.shard else 4 * total * (processes > 1),
        "activations": tokens * row,
        "attention's mask": config.pack * tokens**2 * (1 + each),  # as bits, and as numbers
        "head": min(HEAD_BYTES, tokens * shape.vocabulary * 16),
    }
    turns = [sum(parts.get(name, 0) for name in turn) for turn in (SAMPLING, HANDING_OVER, TRAINING)]
    elsewhere = {*SAMPLING, *HANDING_OVER, *TRAINING, *(HOSTED if parallel.offload else ())}
    standing = sum(parts[name] for name in parts if name not in elsewhere)
    parts.pop("vLLM's cache", None)
    return {**parts, "peak": standing + max(turns)}


def _longest_row(config: GRPOConfig) -> int:
    return PROMPT_TOKENS + config.cap(config.steps)


def _beside(
    config: GRPOConfig, shape: ModelShape, processes: int, stored: float, each: int
) -> dict[str, float]:
    """Predict what reinforcement learning needs besides: other policies, and the sampler."""
    whole, sharded = each * shape.parameters, config.parallel.shard
    rows = math.ceil(config.questions / processes) * config.group_size
    if vllm := config.sampler == "vllm":
        rows, copy = min(rows, config.vllm.max_rows), 0
        own = {"float32": 4, "bfloat16": 2}.get(config.vllm.dtype, each) * shape.parameters
        cache = config.vllm.kv_cache_gb * 2**30
    else:
        rows = min(rows, config.group_size * max(1, SAMPLER_ROWS // config.group_size))
        own, copy = 0, whole * (sharded or config.lag > 0)
        cache = rows * _longest_row(config) * CACHE_GROWTH * shape.kv_bytes(each)
    return {
        "reference": stored,
        "earlier policies": config.lag * stored,
        "critic": 4 * stored * (config.advantage == "gae"),  # with gradients and optimizer
        "sampler copy": copy,
        "vLLM's weights": own,
        "KV cache": cache,
        "vLLM's cache": cache * vllm,  # it is there while the weights are handed over
        "sampler logits": rows * shape.vocabulary * (each + 16),
        "weights handed over": whole * sharded,
    }


def host_memory(config: Settings, shape: ModelShape, processes: int) -> float:
    """Predict the bytes of the host's memory that one process holds, at most.

    Each loads the model whole and copies it (as reference, as earlier policies, as critic) before
    the copies are sharded or moved to a GPU; what is offloaded comes back, as do vLLM's weights
    while it sleeps.
    """
    rl = isinstance(config, GRPOConfig)
    whole = 2 + config.lag + (config.advantage == "gae") if rl else 1
    parts = memory(config, shape, processes)
    hosted = HOSTED if config.parallel.offload else ()
    later = sum(parts.get(name, 0.0) for name in (*hosted, "vLLM's weights"))
    return RUNTIME_BYTES + max(4.0 * whole * shape.parameters, later)


def check_machine(config: Settings, model: str) -> None:
    """Refuse, before anything is loaded, settings for GPUs on a machine without or too small ones.

    Raises:
        InputError: no GPU, or less memory than is predicted, on a GPU or in the host; or there is
            no such model.
    """
    gpus = config.parallel.gpus
    if not gpus:
        return
    if not torch.cuda.is_available():
        raise InputError(
            f"these settings are for {gpus} GPU{'s' * (gpus > 1)} and there is none here; see what "
            "they need with r1lab plan, or train the small world: r1lab zero --preset cpu."
        )
    processes = int(os.environ.get("WORLD_SIZE", config.processes or torch.cuda.device_count()))
    shape, here = shape_named(model), int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    card = torch.cuda.get_device_properties(0)
    check_memory(config, shape, processes, float(card.total_memory))
    check_host(config, shape, processes, here, host_bytes())


def host_bytes() -> float:
    return 1.0 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(config: Settings, shape: ModelShape, processes: int, available: float) -> None:
    """Refuse settings whose predicted peak passes the bytes available to each process."""
    parts = memory(config, shape, processes)
    peak = parts.pop("peak")
    if peak <= available:
        return
    here = [name for name in parts if not (config.parallel.offload and name in HOSTED)]
    largest = sorted(here, key=parts.get, reverse=True)[:3]
    listed = ", ".join(f"{name} {parts[name] / GB:.0f}" for name in largest)
    unset = [f"parallel.{name}" for name in SWITCHES if not getattr(config.parallel, name)]
    less = "shorter caps" if largest[0] in SAMPLING else "fewer microbatch_tokens"
    raise InputError(
        f"too little memory: one process of {processes} will need {peak / GB:.0f} GB ({listed} "
        f"among them) and has {available / GB:.0f} GB; use more GPUs or a smaller model, or set "
        f"{', '.join([less, *unset])}."
    )


def check_host(
    config: Settings, shape: ModelShape, processes: int, here: int, available: float
) -> None:
    """Refuse where the processes of one machine, `here` of them, pass its memory in bytes."""
    needed = here * host_memory(config, shape, processes)
    if needed > available:
        raise InputError(
            f"too little memory: {here} processes, each of which loads the model whole before it is "
            f"shared out, will need {needed / GB:.0f} GB of the host's memory, and it has "
            f"{available / GB:.0f} GB; use a larger machine, fewer of its GPUs or a smaller model."
        )
