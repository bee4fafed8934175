"""Log-probabilities of chosen tokens: the public function checks its inputs and picks a rung.

The ladder, each rung equal to the one below within a tested tolerance:

1. `reference.reference_linear`: float64, the truth.
2. `reference.plain_linear`: plain torch, holds all logits. Small calls on a CPU.
3. `chunked`: a slab of the vocabulary at a time. Large calls on a CPU, and every device that has
   no kernel here (GPUs older than Ampere, AMD, Apple; float64 anywhere).
4. `fused`: Triton kernels. NVIDIA GPUs from compute capability 8.0 on.
"""

import importlib.util
import math
from types import ModuleType

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from r1lab.errors import InputError
from r1lab.kernels import chunked
from r1lab.kernels.reference import LogProbs, plain_rows
from r1lab.kernels.waves import check_ids, linear_op

# Calls on a CPU whose fp32 logits take no more than this use plain torch: they fit the caches of
# one processor, and every stored run of the small world was computed so, bit for bit.
PLAIN_BYTES = 16 * 2**20


def linear_logprob(
    hidden: Float[Tensor, "*batch hidden"],
    weight: Float[Tensor, "vocab hidden"],
    ids: Int[Tensor, "*batch"],
    *,
    temperature: float = 1.0,
    mask: Bool[Tensor, "*batch"] | None = None,
    return_entropy: bool = False,
    return_lse: bool = False,
) -> LogProbs:
    """Compute log softmax(hidden @ weight.T / temperature)[ids], never holding all the logits.

    All three results are differentiable, by the incoming gradient of each token. Rows outside
    `mask` cost nothing and get zero, whatever they hold; rows whose incoming gradients are zero
    cost nothing in the backward pass. The caller passes ids already shifted: ids[i] is the token
    that follows hidden[i]. Computing the logits twice makes forward and backward four matrix
    products instead of three.

    Args:
        hidden, weight: of one dtype and device. Under autocast both are cast to its dtype.
        mask: which rows to compute; all by default.
        return_entropy: of the whole distribution, nats.
        return_lse: ln sum exp(logits / temperature).

    Raises:
        InputError: shapes, dtypes or devices that do not fit each other, a temperature that is not
            positive, a live id outside the vocabulary.
    """
    check(hidden, weight, ids, mask, temperature)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    if hidden.dtype != weight.dtype:
        raise InputError(
            f"hidden is {hidden.dtype} but weight is {weight.dtype}; cast one, or use autocast."
        )
    check_ids(ids, mask, len(weight))
    rows = hidden.reshape(-1, hidden.shape[-1])
    live = None if mask is None else mask.flatten()
    call = (rows, weight, ids.flatten(), live, float(temperature), return_entropy)
    with torch.autocast(device, enabled=False):  # sums stay in fp32
        values = plain_rows(*call) if fits_plainly(*call[:4]) else linear_op(*call, pick(hidden))
    asked = (True, return_entropy, return_lse)
    shaped = (v.view(ids.shape) if a else None for v, a in zip(values, asked, strict=True))
    return LogProbs(*shaped)


def fits_plainly(hidden: Tensor, weight: Tensor, ids: Tensor, mask: Tensor | None) -> bool:
    """Say whether the logits of this call's live rows are small enough to be held, on a CPU."""
    if hidden.device.type != "cpu":
        return False
    rows = ids.numel() if mask is None else int(mask.sum())
    return rows * len(weight) * torch.float32.itemsize <= PLAIN_BYTES


def pick(x: Tensor) -> ModuleType:
    """Pick the rung for a call that is not small: Triton where its kernels run, else chunked."""
    nvidia = x.device.type == "cuda" and torch.version.hip is None
    if not nvidia or x.dtype == torch.float64 or importlib.util.find_spec("triton") is None:
        return chunked
    if torch.cuda.get_device_capability(x.device) < (8, 0):
        return chunked
    from r1lab.kernels import fused  # needs triton, which not all systems have

    return fused


def check(
    hidden: Tensor, weight: Tensor, ids: Tensor, mask: Tensor | None, temperature: float
) -> None:
    """Refuse what no rung can compute, before anything is launched."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InputError(f"temperature must be positive, not {temperature}; for argmax take ids.")
    if ids.shape != hidden.shape[:-1]:
        raise InputError(
            f"ids has shape {tuple(ids.shape)} but there are rows of shape "
            f"{tuple(hidden.shape[:-1])}; give one id for each row."
        )
    if mask is not None and (mask.shape != ids.shape or mask.dtype != torch.bool):
        raise InputError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}; give a bool for each id, of shape "
            f"{tuple(ids.shape)}."
        )
    if ids.is_floating_point() or ids.dtype == torch.bool or ids.is_complex():
        raise InputError(f"ids are {ids.dtype}; give integers.")
    if not hidden.is_floating_point():
        raise InputError(f"log-probs need floating-point inputs, not {hidden.dtype}.")
    if hidden.shape[-1] == 0:
        raise InputError("the last dimension is empty; give at least one column.")
    if weight.ndim != 2 or weight.shape[1] != hidden.shape[-1] or len(weight) == 0:
        raise InputError(
            f"weight has shape {tuple(weight.shape)}, hidden states have {hidden.shape[-1]} "
            "numbers; give a weight [vocab, hidden]."
        )
    if len({t.device for t in (hidden, weight, ids, mask) if t is not None}) > 1:
        raise InputError("inputs lie on different devices; move them to one.")
