"""Stage 1 of the paper: R1-Zero, reinforcement learning on a base model and nothing else (v2 §2).

The stage is `training.run.run_grpo` with these settings.
"""

from r1lab.grpo import LossConfig
from r1lab.stages.gpus import GPU_PRESETS
from r1lab.stages.recipes import ZERO_RECIPES
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import Parallel

PRESETS: dict[str, GRPOConfig] = {
    "cpu": GRPOConfig(),
    # v2 §2.1 and §3.2.1. The paper leaves open: clip (it gives 10 for R1's first RL stage),
    # aggregation, the optimizer's settings, the format reward's size ("equal weight"). 512 GPUs:
    # v2 B.4.4. It documents; a model of 671 billion weights does not fit the way we spread it.
    "paper": GRPOConfig(
        model="deepseek-ai/DeepSeek-V3-Base",
        template="r1_zero",
        format_weight=1.0,
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
        parallel=Parallel(
            shard=True, precision="bfloat16", recompute=True, reduce_every=True, gpus=512
        ),
    ),
    # A real language model on two cores: sums in plain English, of which before training it gets 36 %
    # (two one-digit terms), 4 and 8 % right (data/runs/smollm2). A rollout is 64 short answers. It is
    # an instruct model: not R1-Zero. Without an example it never writes the tags, and no reward comes.
    "smollm2": GRPOConfig(
        model="smollm2",
        mixture={"gym_sums/1": 2.0, "gym_sums/2": 1.0, "gym_sums/3": 1.0},
        lang_weights={"en": 1.0},
        template="chat_example",
        rollouts=60,
        questions=8,
        group_size=8,
        minibatches=2,
        learning_rate=1e-5,
        caps=((0, 64), (60, 96)),
        microbatch_tokens=2048,
        eval_file="data/test_gym_sums.jsonl",
        eval_every=20,
        eval_samples=4,
        eval_problems=8,
        final_samples=4,
        checkpoint_every=10,
    ),
    **ZERO_RECIPES,
    **GPU_PRESETS,
}
