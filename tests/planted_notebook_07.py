"""Solutions of notebook 07's exercise: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import math

import torch
from torch.nn import functional as F

RIGHT, WRONG = {}, {}

# ---- bradley_terry(chosen, rejected) -------------------------------------------------------------


def as_classification(chosen, rejected):
    """The chosen reply is class 0 of two."""
    scores = torch.stack([chosen, rejected], dim=1)
    return F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))


def in_a_loop_of_numbers(chosen, rejected):
    pairs = zip(chosen.tolist(), rejected.tolist(), strict=True)
    return torch.tensor(sum(math.log1p(math.exp(b - a)) for a, b in pairs) / len(chosen))


RIGHT["bradley_terry"] = {
    "logsigmoid": lambda a, b: -F.logsigmoid(a - b).mean(),
    "softplus": lambda a, b: F.softplus(b - a).mean(),
    "two classes": as_classification,
    "a label of 1 for the difference": lambda a, b:
        F.binary_cross_entropy_with_logits(a - b, torch.ones_like(a)),
    "logaddexp": lambda a, b: torch.logaddexp(torch.zeros_like(a), b - a).sum() / len(a),
}
WRONG["bradley_terry"] = {
    "the wrong way round": lambda a, b: -F.logsigmoid(b - a).mean(),
    "without the minus": lambda a, b: F.logsigmoid(a - b).mean(),
    "summed, not averaged": lambda a, b: -F.logsigmoid(a - b).sum(),
    "log of the mean probability": lambda a, b: -(a - b).sigmoid().mean().log(),
    "mean difference first": lambda a, b: -F.logsigmoid((a - b).mean()),
    "the log of a sigmoid that is 0": lambda a, b: -((a - b).sigmoid().log().mean()),
    "probability, no logarithm": lambda a, b: (b - a).sigmoid().mean(),
    "each score apart": lambda a, b: (F.softplus(-a) + F.softplus(b)).mean(),  # two labels, no comparison
    "hinge": lambda a, b: F.relu(1 - (a - b)).mean(),
    "the rejected one detached": lambda a, b: -F.logsigmoid(a - b.detach()).mean(),
    "no gradient": in_a_loop_of_numbers,
    "one loss per pair": lambda a, b: -F.logsigmoid(a - b),
}
