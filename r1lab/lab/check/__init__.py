"""`check.NAME(your_function)`: is an exercise solved, and if not, which property fails?

A check prints one line, "NAME: right" or a sentence with your own numbers, and returns True or
False. It compares properties, so any right way to write the function is right.
"""

from r1lab.lab.check.completions import (
    final_answer,
    format_reward,
    language_consistency,
    majority_vote,
    pass_at_k,
    reflection_rate,
    safe_accuracy,
)
from r1lab.lab.check.engine import EXERCISES
from r1lab.lab.check.kernels import online_softmax, target_in_tile
from r1lab.lab.check.objective import (
    clipped_objective,
    gae,
    group_advantages,
    grpo_loss,
    kl_penalty,
    token_mean,
)
from r1lab.lab.check.preference import bradley_terry
from r1lab.lab.check.scaling import best_fit, bytes_on_gpu, tis_weight
from r1lab.lab.check.search import puct_score, tree_value

__all__ = [
    "best_fit", "bradley_terry", "bytes_on_gpu", "clipped_objective", "final_answer",
    "format_reward", "gae", "group_advantages", "grpo_loss", "kl_penalty", "language_consistency",
    "majority_vote", "names", "online_softmax", "pass_at_k", "reflection_rate", "puct_score",
    "safe_accuracy", "target_in_tile", "tis_weight", "token_mean", "tree_value",
]  # fmt: skip


def names() -> list[str]:
    """All exercises that have a check."""
    return sorted(EXERCISES)
