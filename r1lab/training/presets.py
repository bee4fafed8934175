"""GRPO settings by name: the small world's, the paper's, and those of real models on GPUs.

`stages.zero` says which model and task go with a name. Those of GPUs have not run on any GPU yet:
numbers without a source are ours, and not tuned; by `r1lab plan`, each fits the machine it names.
"""

from dataclasses import replace

from r1lab.objective import LossConfig
from r1lab.sampling import VLLMConfig
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import Parallel

CPU = GRPOConfig(
    rollouts=44,
    questions=24,
    group_size=16,
    minibatches=4,
    learning_rate=1e-4,
    caps=((0, 320), (80, 448)),
    microbatch_tokens=1_024,
    reference_every=40,
    eval_every=5,
    eval_samples=16,
    eval_problems=16,
    final_samples=16,
    checkpoint_every=2,
)
# v2 §2.1 and §3.2.1. The paper leaves open: clip (it gives 10 for R1's first RL stage),
# aggregation, the optimizer's settings. 512 GPUs: v2 B.4.4. It documents; a model of 671 billion
# weights does not fit the way we spread it.
PAPER = GRPOConfig(
    rollouts=650,
    questions=512,
    group_size=16,
    minibatches=16,
    learning_rate=3e-6,
    temperature=1.0,
    loss=LossConfig(clip_low=10.0, clip_high=10.0, beta=0.001, aggregation="sequence"),
    caps=((0, 32_768), (8_200, 65_536)),
    microbatch_tokens=65_536,
    reference_every=400,
    parallel=Parallel(shard=True, precision="bfloat16", recompute=True, reduce_every=True, gpus=512),
    eval_every=5,
    eval_samples=16,
    eval_problems=16,
    final_samples=16,
    checkpoint_every=2,
)
# A real language model on two cores; a rollout is 64 short answers.
SMOLLM2 = GRPOConfig(
    rollouts=60,
    questions=8,
    group_size=8,
    minibatches=2,
    learning_rate=1e-5,
    caps=((0, 64), (60, 96)),
    microbatch_tokens=2_048,
    reference_every=40,
    eval_every=20,
    eval_samples=4,
    eval_problems=8,
    final_samples=4,
    checkpoint_every=10,
)
# Sharding over one GPU is what bfloat16 and recomputed activations come with: without them, 1.5B
# would need 125 GB for R1-Zero and more for fine-tuning.
ONE_GPU = Parallel(shard=True, precision="bfloat16", recompute=True, gpus=1)
# TinyZero (README): of the Qwen2.5 bases on Countdown, 0.5B fails and 1.5B learns to search. Rate
# and group are of the order that the field uses at this size; KL as in the paper (v2 2.1).
COUNTDOWN = GRPOConfig(
    rollouts=200,
    questions=64,
    group_size=16,
    minibatches=4,
    learning_rate=1e-6,
    loss=LossConfig(beta=0.001),
    caps=((0, 512), (400, 1_024)),
    microbatch_tokens=16_384,
    reference_every=400,
    processes=1,
    parallel=ONE_GPU,
    eval_every=20,
    eval_samples=4,
    eval_problems=64,
    final_samples=4,
    checkpoint_every=20,
)
GSM8K = replace(COUNTDOWN, rollouts=116)
MATH = replace(COUNTDOWN, rollouts=234, caps=((0, 1_024), (400, 2_048)))

# GiB of vLLM's key-value cache: room for 256 completions of half the cap.
CACHES = {"qwen2.5-0.5b": 2.0, "qwen2.5-1.5b": 5.0, "qwen2.5-7b": 10.0}
MACHINES = {"1gpu": 1, "4gpu": 4, "8gpu": 8, "2nodes": 16}  # GPUs in all


def spread(size: str, gpus: int) -> GRPOConfig:
    """Countdown's settings for a model of this size over so many GPUs.

    On one GPU and on eight the torch sampler draws; on four, and on two nodes, vLLM, while FSDP2
    trains. Only memory and time change, not what is learned.
    """
    large = size.endswith("7b")
    # Where 20 bytes a weight, divided over the GPUs, leave no room beside the sampler's copy, the
    # shares wait in the host's memory.
    parallel = Parallel(
        shard=True, precision="bfloat16", recompute=True, reduce_every=large,
        offload=large and gpus < 8, gpus=gpus,
    )  # fmt: skip
    # Rows are sorted and padded, not packed: attention (sdpa) would multiply every token with its
    # whole line, which by the plan makes training 40 to 140 % longer, and padding is less.
    spread_out = replace(COUNTDOWN, parallel=parallel, processes=0)
    if gpus in (4, 16):
        return replace(spread_out, sampler="vllm", vllm=VLLMConfig(kv_cache_gb=CACHES[size]))
    return spread_out


GRPO_PRESETS: dict[str, GRPOConfig] = {
    "cpu": CPU,
    "paper": PAPER,
    "smollm2": SMOLLM2,
    "countdown": COUNTDOWN,
    "gsm8k": GSM8K,
    "math": MATH,
}
for size in CACHES:
    for machine, gpus in MACHINES.items():
        GRPO_PRESETS[f"{size}-{machine}"] = spread(size, gpus)
