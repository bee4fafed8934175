"""Recipes for real models: R1-Zero on Countdown, GSM8K and MATH, and distillation from R1's traces.

`r1lab zero --preset NAME` and `r1lab sft --preset NAME` run them; each is a configuration of the
code that trains the small world. The test suite runs each for two steps on a shipped model and
local files. On the models that they name, and so on any GPU: not run yet. Numbers without a source
are ours, and not tuned: by `r1lab plan`, each needs less than 60 of the 80 GB of the one GPU that
it is for, and a run on a smaller one is refused before anything is loaded.
"""

from dataclasses import dataclass, replace

from r1lab.grpo import LossConfig
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import Parallel
from r1lab.training.sft import SFTConfig

# Sharding over one GPU is what bfloat16 and recomputed activations come with: without them, 1.5B
# would need 125 GB for R1-Zero and more for fine-tuning.
ONE_GPU = Parallel(shard=True, precision="bfloat16", recompute=True, gpus=1)
# TinyZero (README): of the Qwen2.5 bases on Countdown, 0.5B fails and 1.5B learns to search. Rate
# and group are of the order that the field uses at this size; KL as in the paper (v2 2.1).
COUNTDOWN = GRPOConfig(
    model="Qwen/Qwen2.5-1.5B",
    data="countdown34:train[:16384]",
    template="r1_zero",
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
    eval_file="countdown34:train[-512:]",
    eval_every=20,
    eval_samples=4,
    eval_problems=64,
    final_samples=4,
    checkpoint_every=20,
)
GSM8K = replace(
    COUNTDOWN, model="Qwen/Qwen2.5-0.5B", data="gsm8k:train", eval_file="gsm8k:test", rollouts=116,
)  # fmt: skip
MATH = replace(
    COUNTDOWN, data="math:train", eval_file="math500:test", rollouts=234, caps=((0, 1_024), (400, 2_048)),
)  # fmt: skip

ZERO_RECIPES: dict[str, GRPOConfig] = {
    "countdown-0.5b": replace(COUNTDOWN, model="Qwen/Qwen2.5-0.5B"),
    "countdown-1.5b": COUNTDOWN,
    "gsm8k-0.5b": GSM8K,
    "gsm8k-1.5b": replace(GSM8K, model="Qwen/Qwen2.5-1.5B"),
    "math-0.5b": replace(MATH, model="Qwen/Qwen2.5-0.5B"),
    "math-1.5b": MATH,
}


@dataclass(frozen=True)
class Distillation:
    """Fine-tuning of `model` on the traces of `source` (see `sources.hub`), by `sft`."""

    model: str
    source: str
    sft: SFTConfig


# The paper (v2 B.4.3): 2 to 3 epochs, a cosine to a tenth, 64 rows a step; 1e-4 for Qwen2.5-1.5B's
# mathematical sister. R1's rows have 5,355 tokens on average (v2 Table 5).
DISTILL = SFTConfig(
    epochs=2,
    tokens_per_step=64 * 5_355,
    learning_rate=1e-4,
    warmup_steps=20,
    microbatch_tokens=32_768,
    template="r1",
    processes=1,
    parallel=ONE_GPU,
)
SFT_RECIPES: dict[str, Distillation] = {
    "openr1-0.5b": Distillation("Qwen/Qwen2.5-0.5B", "openr1_math", DISTILL),
    "openr1-1.5b": Distillation("Qwen/Qwen2.5-1.5B", "openr1_math", DISTILL),
    "openthoughts-1.5b": Distillation("Qwen/Qwen2.5-1.5B", "openthoughts", DISTILL),
}
