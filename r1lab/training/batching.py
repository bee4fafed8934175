"""Rows of different lengths into balanced shares and tight micro-batches.

Packed (v2 B.1), the rows of a micro-batch lie end to end and no token is padding: `Policy` feeds them
to the model as one line. Attention over a line costs the square of its length wherever the
implementation looks at a mask (sdpa); that of flash attention skips the rest.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def balanced_share(lengths: Sequence[int], rank: int, size: int) -> list[int]:
    """The rows that process `rank` of `size` works on: longest first, dealt back and forth.

    Every process computes all shares alike, so nothing has to be sent around.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [i for place, i in enumerate(order) if _snake(place, size) == rank]


def _snake(place: int, size: int) -> int:
    lap, seat = divmod(place, size)
    return seat if lap % 2 == 0 else size - 1 - seat


def microbatches(lengths: Sequence[int], rows: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Cut rows, sorted by length, into batches of at most `max_tokens` with their padding.

    A row longer than `max_tokens` gets a batch of its own.
    """
    batches: list[list[int]] = []
    for row in sorted(rows, key=lambda i: (-lengths[i], i)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def best_fit(lengths: Sequence[int], rows: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Pack rows into bins of at most `max_tokens`: longest row first, each into the fullest bin
    that it fits in, a new bin where there is none.

    A row longer than `max_tokens` gets a bin of its own. At most 11/9 of the fewest bins possible,
    and four more (Johnson 1973).
    """
    bins: list[list[int]] = []
    space: list[tuple[int, int]] = []  # (tokens left, bin), the fullest first
    for row in sorted(rows, key=lambda i: (-lengths[i], i)):
        place = bisect_left(space, (lengths[row], 0))
        left, number = space.pop(place) if place < len(space) else (max_tokens, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(row)
        insort(space, (left - lengths[row], number))
    return bins


def batching(pack: bool) -> Callable[[Sequence[int], Sequence[int], int], list[list[int]]]:
    """How rows become micro-batches: packed, or padded to the longest."""
    return best_fit if pack else microbatches


def pad_rows(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], pad_id: int
) -> tuple[Int[Tensor, "batch seq"], Bool[Tensor, "batch seq"]]:
    """Ids (prompt then completion, padded on the right) and the completion mask."""
    width = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    ids = torch.full((len(prompts), width), pad_id)
    mask = torch.zeros(len(prompts), width, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor([*prompt, *completion])
        mask[row, len(prompt) : end] = True
    return ids, mask


def pad_columns(values: Sequence[Tensor], width: int) -> Tensor:
    """1-D tensors of different lengths as rows [batch, width], zeros after each end."""
    out = torch.zeros(len(values), width)
    for row, value in enumerate(values):
        out[row, : len(value)] = value
    return out
