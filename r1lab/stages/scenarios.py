"""Stage 4 of R1: reinforcement learning for all scenarios (v2 section 3.2.2).

Starts from Dev3 and gives R1. Reasoning keeps its rule rewards and the language reward; general
questions (chat, unsafe requests) and the reward models that judge them come in for the last part
only, as in the paper (the last 400 of 1,700 steps): longer exposure hacks the reward models.
"""

from r1lab.stages.reasoning import REASONING_MIXTURE
from r1lab.stages.rl_stage import RLStage
from r1lab.training.config import GRPOConfig
from r1lab.world.small_world import SmallWorld

ROLLOUTS = 20
LATE_FROM = ROLLOUTS - 5  # the last quarter, as the paper's 400 of 1,700 steps

SCENARIOS = RLStage(
    SmallWorld(
        mixture=REASONING_MIXTURE,
        late_mixture={"chat/1": 14.0, "unsafe/1": 4.0},  # half of the questions asked then
        late_from=LATE_FROM,
        language_weight=1.0,
    ),
    GRPOConfig.preset(
        "cpu",
        rollouts=ROLLOUTS,
        temperature=0.7,  # the paper's: higher gave incoherent text in this stage
        caps=((0, 448),),
        eval_every=10,
        final_samples=4,
    ),
)
