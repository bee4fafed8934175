"""Distillation: a small student learns from R1's samples, against RL on it (v2 B.4.3, F.1).

The paper fine-tunes its students on the 800,000 samples of the third stage, curated with R1, and
without any RL; and trains one 32B base by RL alone for over 10,000 steps, which its distilled twin
beats for less compute. Here samples are drawn from R1 afresh, through the same filters.
"""

import math
from dataclasses import dataclass, field

from r1lab.models.policy import load_model
from r1lab.stages.rejection import FILTERS, MIXTURE, Rejection
from r1lab.stages.harvest import HarvestConfig
from r1lab.stages.rl_stage import RLStage
from r1lab.training.sft import SFTConfig

# Of prompt and completion, in RL on the student: no mean is lower, so that its compute is spent
# before its rollouts are.
FEWEST_TOKENS = 20


@dataclass(frozen=True)
class Distill(Rejection):
    """The stage's settings: those of rejection sampling, from R1, for a student that reads more
    epochs at a higher rate, as the paper's smaller students do (1e-4 at 1.5B, 2e-5 at 70B)."""

    source: str = "runs/r1/r1"
    base: str = "data/small"
    sampling: HarvestConfig = field(
        default_factory=lambda: HarvestConfig(
            mixture=MIXTURE, lang_weights={"en": 0.6, "zh": 0.4}, filters=FILTERS, chunks=12,
            questions=192,
        )
    )  # fmt: skip
    sft: SFTConfig = field(default_factory=lambda: SFTConfig(epochs=3, learning_rate=3e-3))


def student_rl_stage(distilled: dict, student: str, stage: RLStage) -> RLStage:
    """RL on the student, on the same kinds of questions, until it has spent what distilling took.

    Counted is what the student's own learning cost (`flops` of the summaries). R1's sampling
    is beside it: it is paid once for all students, as R1's own training is.

    Args:
        distilled: the `summary.json` of the student's fine-tuning.
        stage: the other settings of the RL.
    """
    rl = stage.rl
    parameters = load_model(student)[0].num_parameters()
    flops = rl.flops(parameters, rl.questions * rl.group_size * FEWEST_TOKENS)
    rollouts = math.ceil(distilled["flops"] / flops)
    sampling = distilled["data"]["settings"]["sampling"]
    stage = stage.with_world(mixture=sampling["mixture"], lang_weights=sampling["lang_weights"])
    return stage.with_rl(
        rollouts=rollouts, flops_limit=distilled["flops"],
        eval_every=max(rl.eval_every, rollouts // 16),
    )  # fmt: skip
