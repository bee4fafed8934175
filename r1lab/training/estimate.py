"""What a run will need: memory of one process and time of a rollout, predicted before it is loaded.

Counted from the model's shape and the run's settings. The efficiencies are assumptions, printed
with the result. Memory was compared with two stored runs on CPUs (`tests/test_plan.py`), time with
none; nothing of this was run on any GPU yet.
"""

import math
import os
from dataclasses import dataclass

import torch
from transformers import AutoConfig, PretrainedConfig

from r1lab.errors import InputError
from r1lab.training.compute import sampling_flops
from r1lab.training.config import GRPOConfig
from r1lab.training.supervised import SupervisedConfig

Settings = GRPOConfig | SupervisedConfig
GB = 1e9
SAMPLER_ROWS = 256  # completions that the torch sampler decodes at once
HEAD_BYTES = 0.9 * GB  # workspace of the fused log-prob; all logits are never held
RUNTIME_BYTES = 1.0 * GB  # Python, its libraries and CUDA's context
PROMPT_TOKENS = 160  # of a question in its template
TRACE_TOKENS = 5_355  # of a row to fine-tune on: R1's on average (v2 Table 5)


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
    if hasattr(config, "num_experts_per_tok"):
        raise InputError(
            f"{config.model_type} has experts, and what they need is not predicted; with "
            "parallel.gpus 0, a run asks for no prediction."
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
    try:
        return shape_of(AutoConfig.from_pretrained(model))
    except InputError:
        raise
    except (OSError, ValueError, AttributeError):
        raise InputError(
            f"{model}: its config.json cannot be read as that of a model like Qwen2 or Llama: no "
            "folder and no model of the Hub has this name, or the Hub is out of reach; check the "
            f"name and the network. The shapes of {', '.join(SHAPES)} are known without."
        ) from None


@dataclass(frozen=True)
class Gpu:
    """Peak rates by the vendor's data sheet: dense bfloat16, memory, link in a node, network."""

    tflops: int
    memory_gbs: int
    link_gbs: int
    network_gbs: int


GPUS = {
    "h100": Gpu(989, 3_350, 450, 50),  # SXM, NVLink 4 (one direction), 400 Gbit/s a GPU
    "a100": Gpu(312, 2_039, 300, 25),  # 80 GB SXM, NVLink 3, 200 Gbit/s a GPU
}
HOST_GBS = 64  # PCIe 5 x16, between the GPU and the host's memory
# Assumed, not measured: shares of the peak rates that are reached, and the time that launching the
# operators of one layer takes in a decoding step, where the GPU waits for them; vLLM launches all at
# once, but decides anew in every step what to compute.
TRAINING_SHARE, DECODING_SHARE, LINK_SHARE, LAUNCH_SECONDS = 0.4, 0.6, 0.7, 0.6e-3
VLLM_STEP_SECONDS = 5e-3


CACHE_GROWTH = 1.25  # while the torch sampler's cache grows, it is larger than what it holds
# Waiting in the host's memory with `Parallel.offload`.
HOSTED = ("weights", "gradients", "optimizer", "reference", "earlier policies", "critic")
SAMPLING = ("vLLM's weights", "KV cache", "sampler logits")  # what only the sampler's turn needs
SWITCHES = ("shard", "recompute", "reduce_every", "offload")  # of `Parallel`: less memory, more time


def bytes_each(config: Settings) -> int:
    """Of a number that is computed with."""
    return 2 if config.parallel.precision == "bfloat16" else 4


def memory(config: Settings, shape: ModelShape, processes: int) -> dict[str, float]:
    """Bytes of one process, part by part; `peak` is the largest sum at one time.

    Sampling, handing over weights, and training take turns; the rest stays. What is offloaded is
    in the host's memory and not in the peak. Fine-tuning samples nothing and has no reference; a
    row longer than `microbatch_tokens`, of which the settings do not tell, needs more.
    """
    parallel, total, each = config.parallel, shape.parameters, bytes_each(config)
    stored = 4 * total / (processes if parallel.shard else 1)
    rl = isinstance(config, GRPOConfig)
    longest = PROMPT_TOKENS + config.cap(config.steps) if rl else 0
    tokens = max(config.microbatch_tokens, longest)
    whole_gradients = 4 * total * (not parallel.reduce_every)
    layer, root = shape.layer_parameters, shape.root_parameters
    together = each * (2 * layer + root) + (each + 4) * (layer + root) + whole_gradients
    kept = each * shape.hidden if parallel.recompute else shape.layer_activations(each)
    parts = {
        "weights": stored,
        "gradients": stored,
        "optimizer": 2 * stored,
        **(_beside(config, shape, processes, stored) if rl else {}),
        "runtime": RUNTIME_BYTES,
        "layers together": together if parallel.shard else 4 * total * (processes > 1),
        "activations": tokens * (
            shape.layers * kept + parallel.recompute * shape.layer_activations(each)
            + shape.hidden * (4 + 4 * each)
        ),
        "attention's mask": config.pack * tokens**2 * (1 + each),  # as bits, and as numbers
        "head": min(HEAD_BYTES, tokens * shape.vocabulary * 16),
    }  # fmt: skip
    awake = ("vLLM's weights", "KV cache") if rl and config.sampler == "vllm" else ()
    turns = (
        SAMPLING,
        ("weights handed over", *awake),
        ("layers together", "activations", "attention's mask", "head"),
    )
    hosted = HOSTED if parallel.offload else ()
    parts = {name: float(size) for name, size in parts.items()}
    standing = sum(
        parts.get(one, 0.0) for one in (*HOSTED, "runtime", "sampler copy") if one not in hosted
    )
    largest = max(sum(parts.get(name, 0.0) for name in turn) for turn in turns)
    return {**parts, "peak": standing + largest}


def _beside(
    config: GRPOConfig, shape: ModelShape, processes: int, stored: float
) -> dict[str, float]:
    """What reinforcement learning needs besides: other policies, and the sampler."""
    parallel, each, rows = config.parallel, bytes_each(config), sampling_rows(config, processes)
    whole, row = each * shape.parameters, PROMPT_TOKENS + config.cap(config.steps)
    cache = rows * row * CACHE_GROWTH * shape.kv_bytes(each)
    if config.sampler == "vllm":
        cache = config.vllm.kv_cache_gb * 2**30
    parts = {
        "reference": stored,
        "earlier policies": config.lag * stored,
        "critic": 4 * stored * (config.advantage == "gae"),  # with gradients and optimizer
        "sampler copy": whole * (config.sampler == "torch" and (parallel.shard or config.lag > 0)),
        "vLLM's weights": vllm_bytes(config, shape),
        "KV cache": cache,
        "sampler logits": rows * shape.vocabulary * (each + 16) * (cache > 0),
        "weights handed over": whole if parallel.shard else 0,
    }
    return {name: float(size) for name, size in parts.items()}


def vllm_bytes(config: Settings, shape: ModelShape) -> int:
    """Of the weights that vLLM holds itself, in the same process, in place of a copy to sample from."""
    if not isinstance(config, GRPOConfig) or config.sampler != "vllm":
        return 0
    own = {"float32": 4, "bfloat16": 2}.get(config.vllm.dtype, bytes_each(config))
    return own * shape.parameters


def host_memory(config: Settings, shape: ModelShape, processes: int) -> float:
    """Bytes of the host's memory that one process holds, at most.

    Each loads the model whole and copies it (as reference, as earlier policies, as critic) before
    the copies are sharded or moved to a GPU; what is offloaded comes back, as do vLLM's weights
    while it sleeps.
    """
    rl = isinstance(config, GRPOConfig)
    whole = 2 + config.lag + (config.advantage == "gae") if rl else 1
    parts = memory(config, shape, processes)
    offloaded = config.parallel.offload * sum(parts.get(name, 0.0) for name in HOSTED)
    later = offloaded + parts.get("vLLM's weights", 0.0)
    return RUNTIME_BYTES + max(4.0 * whole * shape.parameters, later)


def sampling_rows(config: GRPOConfig, processes: int) -> int:
    """Completions that a process decodes at once: whole groups, or as many as vLLM may."""
    groups = math.ceil(config.questions / processes)
    if config.sampler == "vllm":
        return min(groups * config.group_size, config.vllm.max_rows)
    return config.group_size * min(groups, max(1, SAMPLER_ROWS // config.group_size))


def forward_flops(config: Settings, shape: ModelShape, tokens: int, row: int) -> float:
    """Of one pass over `tokens` in rows of `row`: products with weights, and those of attention.

    On average a token looks at half of its row. In a packed line, sdpa multiplies it with the whole
    line, and masks what is of other rows afterwards.
    """
    seen = min(config.microbatch_tokens, tokens) if config.pack else row / 2
    attention = 4 * shape.layers * shape.heads * shape.head_dim * seen
    return float(sampling_flops(shape.parameters, tokens) + attention * tokens)


def seconds(
    config: Settings, shape: ModelShape, processes: int, gpu: Gpu, nodes: int = 1
) -> dict[str, float]:
    """Of one rollout and its updates, part by part, when half the cap is a completion's length;
    of fine-tuning: of one step."""
    total, each, rl = shape.parameters, bytes_each(config), isinstance(config, GRPOConfig)
    if rl:
        row = PROMPT_TOKENS + config.cap(config.steps) // 2
        tokens = math.ceil(config.questions / processes) * config.group_size * row
    else:
        row, tokens = TRACE_TOKENS, math.ceil(config.tokens_per_step / processes)
    flops = gpu.tflops * 1e12 * TRAINING_SHARE
    forward = forward_flops(config, shape, tokens, row) / flops
    spent = {"reference": forward} if rl else {}
    if rl and (config.sampler == "vllm" or config.lag):
        spent["scoring anew"] = forward
    link = (gpu.network_gbs if nodes > 1 else gpu.link_gbs) * GB * LINK_SHARE
    turns = math.ceil(tokens / config.microbatch_tokens)
    others = (processes - 1) / processes * total / link  # seconds to send each weight as one byte
    host = HOST_GBS * GB * LINK_SHARE
    fetched = 4 * total / processes / host * config.parallel.offload
    reductions = turns if config.parallel.reduce_every else config.minibatches if rl else 1
    passes = 2 + len(spent)  # forward, backward, and those that only score
    return {
        **({"sampling": _sampling_seconds(config, shape, processes, gpu)} if rl else {}),
        **spent,
        "training": (3 + config.parallel.recompute) * forward,
        "messages": others * (passes * each * turns + 4 * reductions + each * rl)
        + fetched * (passes * turns + reductions) + 2 * vllm_bytes(config, shape) / host,
    }  # fmt: skip


def _sampling_seconds(config: GRPOConfig, shape: ModelShape, processes: int, gpu: Gpu) -> float:
    """Reading the questions, then decoding: a step reads all weights and what the cache holds.

    The torch sampler begins rows together and waits for the longest, and for its operators to be
    launched. vLLM puts a new row where one has ended.
    """
    cap, each = config.cap(config.steps), bytes_each(config)
    rows = math.ceil(config.questions / processes) * config.group_size
    flops = gpu.tflops * 1e12 * TRAINING_SHARE
    reading = sampling_flops(shape.parameters, rows // config.group_size * PROMPT_TOKENS) / flops
    at_once, launching = sampling_rows(config, processes), shape.layers * LAUNCH_SECONDS
    held, steps = (PROMPT_TOKENS + cap / 2) * shape.kv_bytes(each), math.ceil(rows / at_once) * cap
    if config.sampler == "vllm":
        room = config.vllm.kv_cache_gb * 2**30 / held
        at_once, launching = max(1, min(at_once, int(room))), VLLM_STEP_SECONDS
        steps = (rows / at_once + 1) * cap / 2
    read = each * shape.parameters + at_once * held / 2
    step = max(read / (gpu.memory_gbs * GB * DECODING_SHARE), launching)
    return steps * step + reading


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
    processes = config.processes or torch.cuda.device_count()
    processes = int(os.environ.get("WORLD_SIZE", processes))
    available = float(torch.cuda.get_device_properties(0).total_memory)
    shape = shape_named(model)
    check_memory(config, shape, processes, available)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    host = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    check_host(config, shape, processes, here, host)


def check_memory(config: Settings, shape: ModelShape, processes: int, available: float) -> None:
    """Refuse settings whose predicted peak passes the bytes available to each process."""
    parts = memory(config, shape, processes)
    peak = parts.pop("peak")
    if peak > available:
        here = [name for name in parts if not (config.parallel.offload and name in HOSTED)]
        largest = sorted(here, key=parts.get, reverse=True)[:3]
        who = "the process" if processes == 1 else f"each of {processes} processes"
        told = ", ".join(f"{name} {parts[name] / GB:.0f}" for name in largest)
        less = "shorter caps" if largest[0] in SAMPLING else "fewer microbatch_tokens"
        unset = [name for name in SWITCHES if not getattr(config.parallel, name)]
        remedies = ["a smaller model", less, *(f"parallel.{name}" for name in unset)]
        raise InputError(
            f"too little memory: {who} will need {peak / GB:.0f} GB "
            f"({told} among them) and has {available / GB:.0f} GB; use more GPUs, "
            f"{', '.join(remedies[:-1])} or {remedies[-1]}."
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
