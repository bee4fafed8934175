"""The memory that one process of a run will need, predicted before anything is loaded.

Counted from the model's shape and the run's settings, and compared with two stored runs on CPUs
(`tests/test_plan.py`); not compared with any run on a GPU yet.
"""

import math
import os
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from r1lab.errors import InputError
from r1lab.files import read_toml
from r1lab.machine import memory_bytes
from r1lab.models.places import source_of
from r1lab.models.policy import Policy, load_model
from r1lab.sampling import Sampler, SamplerName, VLLMConfig, build_sampler
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import arithmetic
from r1lab.training.supervised import SupervisedConfig

Settings = GRPOConfig | SupervisedConfig
GB = 1e9
SAMPLER_ROWS = 256  # completions that a sampler decodes at once
CACHE_GROWTH = 1.25  # while the torch sampler's cache grows, it is larger than what it holds
HEAD_BYTES = 0.9 * GB  # workspace of the fused log-prob; all logits are never held
RUNTIME_BYTES = 1.0 * GB  # Python, its libraries and CUDA's context
PROMPT_TOKENS = 160  # of a question in its template
UNLIMITED = 1 << 30  # where a model's settings name no longest sequence
# What sharding divides; with `Parallel.offload` it waits in the host's memory.
SHARES = ("weights", "gradients", "optimizer", "reference")
SHAPES = {name: AutoConfig.for_model(**settings) for name, settings in read_toml(__file__, "shapes").items()}


def shape_of(model: str) -> PretrainedConfig:
    """The shape of a model in SHAPES, else of a folder's or the Hub's, read from its config.json.

    Raises:
        InputError: that cannot be had.
    """
    if model in SHAPES:
        return SHAPES[model]
    source = source_of(model)
    try:
        return AutoConfig.from_pretrained(**source)
    except (OSError, ValueError):
        raise InputError(
            f"{model}: its config.json cannot be read as that of a model like Qwen2 or Llama: no "
            "folder and no model of the Hub has this name, or the Hub is out of reach; check the "
            f"name and the network. The shapes of {', '.join(SHAPES)} are known without."
        ) from None


def weights_of(shape: PretrainedConfig) -> tuple[int, int]:
    """Count the weights: of the whole model, and of one layer.

    Raises:
        InputError: it has experts, or other attention than the models above.
    """
    if hasattr(shape, "num_experts_per_tok") or not hasattr(shape, "num_key_value_heads"):
        raise InputError(
            f"what a {shape.model_type} needs is not predicted (it has experts, or other attention "
            "than Qwen2 and Llama); with parallel.gpus 0, a run asks for no prediction."
        )
    with torch.device("meta"):  # takes no memory
        built = AutoModelForCausalLM.from_config(shape)
    return built.num_parameters(), sum(p.numel() for p in built.model.layers[0].parameters())


def kv_bytes(shape: PretrainedConfig, each: int) -> int:
    """Keys and values that one token leaves in the sampler's cache, `each` number so many bytes."""
    heads = getattr(shape, "num_key_value_heads", shape.num_attention_heads)
    return 2 * shape.num_hidden_layers * heads * _head(shape) * each


def layer_activations(shape: PretrainedConfig, each: int) -> int:
    """What one layer keeps of one token for the backward pass, `each` number so many bytes.

    Two norms keep their input in float32, the normalised input and the output; attention keeps
    queries, keys, values, what it found, and that once more in rows; the feed-forward layer
    four products.
    """
    heads, groups = shape.num_attention_heads, shape.num_key_value_heads
    norms = 2 * shape.hidden_size * (4 + 2 * each)
    attention = (3 * heads + 2 * groups) * _head(shape) * each + 4 * heads
    return norms + attention + 4 * shape.intermediate_size * each


def _head(shape):
    return getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads


def memory(config: Settings, shape: PretrainedConfig, processes: int) -> dict[str, float]:
    """Predict the bytes of one process, part by part.

    Sampling and training take turns; "peak" is the larger of the two with what stays, but for what
    is offloaded. "host's memory" is the most that the process holds there: it loads the model whole and copies it
    (as reference) before the copies are sharded or moved to a GPU; what is offloaded comes back, and
    vLLM's weights while it sleeps. A row of fine-tuning that is longer than `microbatch_tokens` needs
    more, and so does what a learner of one's own holds.
    """
    parallel, hidden, (total, layer) = config.parallel, shape.hidden_size, weights_of(shape)
    rl = isinstance(config, GRPOConfig)  # fine-tuning samples nothing and has no other policies
    vllm = rl and config.sampler == "vllm"
    longest = PROMPT_TOKENS + config.cap(config.steps) if rl else 0
    tokens = max(config.microbatch_tokens, longest)
    each = arithmetic(config.precision).itemsize  # bytes of a number to compute with
    stored = 4 * total / (processes if parallel.shard else 1)
    full = getattr(config, "lora", None) is None  # an adapter is small beside what it spares
    times = (1, full, 2 * full, rl and (full or parallel.shard))
    shares = {name: count * stored for name, count in zip(SHARES, times)}
    apart = rl and not vllm and (parallel.shard or not full or each < 4)
    lasting = {"sampler copy": apart * each * total, "runtime": RUNTIME_BYTES}
    sampling = {"vLLM's weights": vllm * (1 + parallel.shard) * each * total}  # the new ones besides
    if rl:
        rows = min(SAMPLER_ROWS, math.ceil(config.questions / processes) * config.group_size)
        cache = rows * longest * CACHE_GROWTH * kv_bytes(shape, each)
        sampling["KV cache"] = config.vllm.kv_cache_gb * 2**30 if vllm else cache
        sampling["sampler logits"] = rows * shape.vocab_size * (each + 16)
    root = layer + total - shape.num_hidden_layers * layer  # embedding, head, norm and one layer
    together = each * layer + (2 * each + 4) * root + 4 * total * (not parallel.reduce_every)
    recomputed = layer_activations(shape, each)
    held = each * hidden if parallel.recompute else recomputed
    row = shape.num_hidden_layers * held + parallel.recompute * recomputed + hidden * (4 + 4 * each)
    training = {
        "layers together": together if parallel.shard else 4 * total * (processes > 1),
        "activations": tokens * row,
        "head": min(HEAD_BYTES, tokens * shape.vocab_size * 16),
    }
    turn, shared = max(sum(sampling.values()), sum(training.values())), sum(shares.values())
    peak = sum(lasting.values()) + turn + shared * (not parallel.offload)
    later = shared * parallel.offload + vllm * each * total
    host = RUNTIME_BYTES + max(4 * total * (1 + rl), later)
    return shares | lasting | sampling | training | {"peak": peak, "host's memory": host}


def check_machine(config: Settings, model: str):
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
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    card = torch.cuda.get_device_properties(0).total_memory
    check_memory(config, shape_of(model), processes, card, memory_bytes() / here)


def check_memory(
    config: Settings, shape: PretrainedConfig, processes: int, card: float, host: float = math.inf
):
    """Refuse settings for which a process has too few bytes, on its GPU or in the host's memory."""
    parts = memory(config, shape, processes)
    save = (
        "smaller model, shorter caps or fewer microbatch_tokens, or save memory with "
        "parallel.recompute, parallel.reduce_every or parallel.offload"
    )
    for part, has, advice in (
        ("peak", card, f"use more GPUs, a {save}"),
        ("host's memory", host, "that is the host's, where it loads the model whole: use fewer of its GPUs"),
    ):
        if parts[part] > has:
            raise InputError(
                f"too little memory: one process of {processes} will need {parts[part] / GB:.0f} GB "
                f"and has {has / GB:.0f} GB; {advice}."
            )


def open_model(
    path: str | Path, sampler: SamplerName = "torch", vllm: VLLMConfig = VLLMConfig(),
    max_tokens: int = 1024,
) -> tuple[Sampler, object, int]:  # fmt: skip
    """(sampler, tokenizer, longest sequence): on a GPU in bfloat16 where there is one.

    There the torch sampler takes as many completions of `max_tokens` at a time as fit."""
    on_gpu = torch.cuda.is_available()
    model, tokenizer = load_model(path, torch.bfloat16 if on_gpu else torch.float32)
    Policy(model)  # refuses what the sampler cannot score, and speeds up its linear layers
    longest = getattr(model.config, "max_position_embeddings", None) or UNLIMITED
    drawing = build_sampler(sampler, model, tokenizer, vllm)
    if on_gpu and sampler == "torch":  # vLLM puts weights of its own there
        shape = model.to("cuda").config
        drawing.max_rows = rows_that_fit(shape, max_tokens, torch.cuda.mem_get_info()[0])
    return drawing, tokenizer, longest


def rows_that_fit(config: PretrainedConfig, max_tokens: int, free: int) -> int:
    """How many completions, 256 at most, have keys and values that fill 0.8 of the free bytes."""
    completion = (PROMPT_TOKENS + max_tokens) * CACHE_GROWTH * kv_bytes(config, each=2)
    return max(1, min(256, int(0.8 * free / completion)))
