"""What a run costs in floating-point operations, by the usual count of two per weight and token.

6 N per trained token (forward and backward) and 2 N per sampled or scored one, N being all weights
(tied embeddings once: they are multiplied as the head). Attention's own products are left out, so
that long rows cost somewhat more than is said here.
"""


def training_flops(parameters: int, tokens: int) -> int:
    return 6 * parameters * tokens


def sampling_flops(parameters: int, tokens: int) -> int:
    return 2 * parameters * tokens


def rl_flops(
    parameters: int, tokens: int, scored_by_reference: bool = False, rescored: bool = False
) -> int:
    """Of `tokens` of prompts and completions that are sampled and then learned from once.

    Args:
        scored_by_reference: with a KL penalty, a reference policy of the same size reads them, too.
        rescored: so does the policy itself, where the sampler is another one.
    """
    readings = 1 + scored_by_reference + rescored
    return training_flops(parameters, tokens) + readings * sampling_flops(parameters, tokens)
