"""What a run will need: memory of one process and time of a rollout, predicted before it is loaded.

Counted from the model's shape and the run's settings. The efficiencies are assumptions, printed
with the result; on several GPUs none of this has been measured yet.
"""

import math
import os
from dataclasses import dataclass

import torch
from transformers import AutoConfig, PretrainedConfig

from r1lab.errors import InputError
from r1lab.training.compute import sampling_flops, training_flops
from r1lab.training.config import GRPOConfig

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
    heads = config.num_attention_heads
    return ModelShape(
        layers=config.num_hidden_layers, hidden=config.hidden_size,
        intermediate=config.intermediate_size, heads=heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size, tied=bool(config.tie_word_embeddings),
        qkv_bias=config.model_type == "qwen2",
    )  # fmt: skip


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
# operators of one layer takes in a decoding step, where the GPU waits for them.
TRAINING_SHARE, DECODING_SHARE, LINK_SHARE, LAUNCH_SECONDS = 0.4, 0.6, 0.7, 0.6e-3


# Waiting in the host's memory with `Parallel.offload`.
HOSTED = ("weights", "gradients", "optimizer", "reference", "earlier policies", "critic")


def memory(config: GRPOConfig, shape: ModelShape, processes: int) -> dict[str, float]:
    """Bytes of one process, part by part; `peak` is the largest sum at one time.

    Sampling, handing over weights, and training take turns; the rest stays. What is offloaded is
    in the host's memory and not in the peak.
    """
    parallel, total = config.parallel, shape.parameters
    each = 2 if parallel.precision == "bfloat16" else 4
    stored = 4 * total / (processes if parallel.shard else 1)
    tokens = max(config.microbatch_tokens, PROMPT_TOKENS + config.cap(config.steps))
    whole_gradients = 4 * total * (not parallel.reduce_every)
    layer, root = shape.layer_parameters, shape.root_parameters
    together = each * (2 * layer + root) + (each + 4) * (layer + root) + whole_gradients
    kept = each * shape.hidden if parallel.recompute else shape.layer_activations(each)
    parts = {
        "weights": stored,
        "gradients": stored,
        "optimizer": 2 * stored,
        "reference": stored,
        "earlier policies": config.lag * stored,
        "critic": 4 * stored * (config.advantage == "gae"),  # with gradients and optimizer
        "runtime": RUNTIME_BYTES,
        "sampler copy": each * total if parallel.shard or config.lag else 0,
        "KV cache": sampling_rows(config, processes)
        * (PROMPT_TOKENS + config.cap(config.steps)) * 1.25 * shape.kv_bytes(each),
        "sampler logits": sampling_rows(config, processes) * shape.vocabulary * (each + 16),
        "weights handed over": each * total if parallel.shard else 0,
        "layers together": together if parallel.shard else 4 * total * (processes > 1),
        "activations": tokens * (
            shape.layers * kept + parallel.recompute * shape.layer_activations(each)
            + shape.hidden * (4 + 4 * each)
        ),
        "head": min(HEAD_BYTES, tokens * shape.vocabulary * 16),
    }  # fmt: skip
    turns = (
        ("KV cache", "sampler logits"),
        ("weights handed over",),
        ("layers together", "activations", "head"),
    )
    hosted = HOSTED if parallel.offload else ()
    parts = {name: float(size) for name, size in parts.items()}
    standing = sum(parts[one] for one in (*HOSTED, "runtime", "sampler copy") if one not in hosted)
    return {**parts, "peak": standing + max(sum(parts[name] for name in turn) for turn in turns)}


def host_memory(config: GRPOConfig, shape: ModelShape, processes: int) -> float:
    """Bytes of the host's memory that one process holds, at most.

    Each loads the model whole and copies it (as reference, as earlier policies, as critic) before
    the copies are sharded or moved to a GPU; what is offloaded comes back.
    """
    whole = 2 + config.lag + (config.advantage == "gae")
    parts = memory(config, shape, processes)
    offloaded = config.parallel.offload * sum(parts[name] for name in HOSTED)
    return RUNTIME_BYTES + max(4.0 * whole * shape.parameters, offloaded)


def sampling_rows(config: GRPOConfig, processes: int) -> int:
    """Completions that a process decodes at once: whole groups."""
    groups = math.ceil(config.questions / processes)
    return config.group_size * min(groups, max(1, SAMPLER_ROWS // config.group_size))


def seconds(
    config: GRPOConfig, shape: ModelShape, processes: int, gpu: Gpu, nodes: int = 1
) -> dict[str, float]:
    """Of one rollout and its updates, part by part, when half the cap is a completion's length."""
    total, each = shape.parameters, 2 if config.parallel.precision == "bfloat16" else 4
    cap = config.cap(config.steps)
    rows = math.ceil(config.questions / processes) * config.group_size
    tokens = rows * (PROMPT_TOKENS + cap // 2)
    flops = gpu.tflops * 1e12 * TRAINING_SHARE
    link = (gpu.network_gbs if nodes > 1 else gpu.link_gbs) * GB * LINK_SHARE
    at_once = sampling_rows(config, processes)
    read = each * total + at_once * (PROMPT_TOKENS + cap / 2) * shape.kv_bytes(each) / 2
    step = max(read / (gpu.memory_gbs * GB * DECODING_SHARE), shape.layers * LAUNCH_SECONDS)
    turns = math.ceil(tokens / config.microbatch_tokens)
    others = (processes - 1) / processes * total / link  # seconds to send each weight as one byte
    fetched = 4 * total / processes / (HOST_GBS * GB * LINK_SHARE) * config.parallel.offload
    reductions = turns if config.parallel.reduce_every else config.minibatches
    recomputed = sampling_flops(total, tokens) * config.parallel.recompute
    return {
        "sampling": math.ceil(rows / at_once) * cap * step
        + sampling_flops(total, rows // config.group_size * PROMPT_TOKENS) / flops,
        "reference": sampling_flops(total, tokens) / flops,
        "training": (training_flops(total, tokens) + recomputed) / flops,
        "messages": others * (3 * each * turns + 4 * reductions + each)
        + fetched * (3 * turns + reductions),
    }


def check_machine(config: GRPOConfig) -> None:
    """Refuse, before anything is loaded, settings for GPUs on a machine without or too small ones.

    Raises:
        InputError: no GPU, or less memory than is predicted, on a GPU or in the host.
    """
    if not config.parallel.gpus:
        return
    if not torch.cuda.is_available():
        raise InputError(
            f"these settings are for {config.parallel.gpus} GPUs and there is none here; see what "
            "they need with r1lab plan, or train the small world: r1lab zero --preset cpu."
        )
    processes = int(os.environ.get("WORLD_SIZE", torch.cuda.device_count()))
    available = float(torch.cuda.get_device_properties(0).total_memory)
    shape = shape_of(AutoConfig.from_pretrained(config.model))
    check_memory(config, shape, processes, available)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", torch.cuda.device_count()))
    host = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    check_host(config, shape, processes, here, host)


def check_memory(config: GRPOConfig, shape: ModelShape, processes: int, available: float) -> None:
    """Refuse settings whose predicted peak passes the bytes available to each process."""
    parts = memory(config, shape, processes)
    peak = parts.pop("peak")
    if peak > available:
        here = [name for name in parts if not (config.parallel.offload and name in HOSTED)]
        largest = sorted(here, key=parts.get, reverse=True)[:3]
        told = ", ".join(f"{name} {parts[name] / GB:.0f}" for name in largest)
        raise InputError(
            f"too little memory: each of {processes} processes will need {peak / GB:.0f} GB "
            f"({told} among them) and has {available / GB:.0f} GB; use more GPUs, a smaller model or "
            "fewer microbatch_tokens, or set parallel.recompute, reduce_every or offload."
        )


def check_host(
    config: GRPOConfig, shape: ModelShape, processes: int, here: int, available: float
) -> None:
    """Refuse where the processes of one machine, `here` of them, pass its memory in bytes."""
    needed = here * host_memory(config, shape, processes)
    if needed > available:
        raise InputError(
            f"too little memory: {here} processes, each of which loads the model whole before it is "
            f"shared out, will need {needed / GB:.0f} GB of the host's memory, and it has "
            f"{available / GB:.0f} GB; use a larger machine, fewer of its GPUs or a smaller model."
        )
