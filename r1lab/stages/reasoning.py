"""Stage 2 of R1: reinforcement learning for reasoning, in one language (v2 section 3.2.1).

Starts from Dev1 and gives Dev2. All that rules can check is asked: searches and sums, programs that
are run, logic; the share of the thinking's words that are of the question's language is added
directly to accuracy and format (eq. 7).
"""

from r1lab.stages.rl_stage import RLStage
from r1lab.training.config import GRPOConfig
from r1lab.world.small_world import SmallWorld

REASONING_MIXTURE = {
    "signs/2": 1.0, "signs/3": 2.0, "signs/4": 4.0, "signs/5": 3.0, "countdown/1": 1.0,
    "countdown/2": 3.0, "sums/1": 1.0, "sums/2": 1.0, "sums/3": 1.0, "logic/2": 1.0, "logic/3": 1.0,
    "programs/1": 1.0, "programs/2": 1.0,
}  # fmt: skip

REASONING = RLStage(
    SmallWorld(mixture=REASONING_MIXTURE, language_weight=1.0),
    # Half the rollouts of R1-Zero: Dev1 starts where habits are already there.
    GRPOConfig.preset("cpu", rollouts=22, caps=((0, 448),), eval_every=11, final_samples=4),
)
