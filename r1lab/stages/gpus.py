"""R1-Zero on Qwen2.5 of three sizes, from one GPU to two nodes of eight: Countdown's recipe.

The presets of a size differ in how the model is spread and who samples, not in what is learned. On
one GPU and on eight it is the torch sampler; on four, and on two nodes, vLLM (which must be
installed), and FSDP2 trains. `r1lab plan` prints what each will need. Not run on any GPU yet.
"""

from dataclasses import replace

from r1lab.sampling import VLLMConfig
from r1lab.stages.recipes import COUNTDOWN
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import Parallel

# GiB of vLLM's key-value cache: room for 256 completions of half the cap.
CACHES = {"Qwen/Qwen2.5-0.5B": 2.0, "Qwen/Qwen2.5-1.5B": 5.0, "Qwen/Qwen2.5-7B": 10.0}
MACHINES = {"1gpu": 1, "4gpu": 4, "8gpu": 8, "2nodes": 16}  # GPUs in all


def _spread(model: str, gpus: int) -> GRPOConfig:
    large = model.endswith("7B")
    # Where 20 bytes a weight, divided over the GPUs, leave no room beside the sampler's copy, the
    # shares wait in the host's memory.
    parallel = Parallel(
        shard=True, precision="bfloat16", recompute=True, reduce_every=large,
        offload=large and gpus < 8, gpus=gpus,
    )  # fmt: skip
    vllm = gpus in (4, 16)
    # Rows are sorted and padded, not packed: attention (sdpa) would multiply every token with its
    # whole line, which by the plan makes training 40 to 140 % longer, and padding is less.
    return replace(
        COUNTDOWN, model=model, parallel=parallel, processes=0,
        sampler="vllm" if vllm else "torch",
        vllm=VLLMConfig(kv_cache_gb=CACHES[model]) if vllm else VLLMConfig(),
    )  # fmt: skip


GPU_PRESETS: dict[str, GRPOConfig] = {
    f"{model.split('/')[1].lower()}-{machine}": _spread(model, gpus)
    for model in CACHES
    for machine, gpus in MACHINES.items()
}
