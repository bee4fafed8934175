"""Rows of different lengths into balanced shares and tight micro-batches.

Packed (v2 B.1), the rows of a micro-batch lie end to end and no token is padding: `Policy` feeds them
to the model as one line. Attention over a line costs the square of its length wherever the
implementation looks at a mask (sdpa); that of flash attention skips the rest.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def balanced_share(lengths: Sequence[int], rank: int, size: int) -> list[int]:
    """The rows that process `rank` of `size` works on: longest first, dealt back and forth.

    Every process computes all shares alike, so nothing has to be sent around.
    """
    order, lap = longest_first(lengths, range(len(lengths))), 2 * size
    turns = (rank, lap - 1 - rank)  # on the way there, and on the way back
    return [row for place, row in enumerate(order) if place % lap in turns]


def longest_first(lengths: Sequence[int], rows: Iterable[int]) -> list[int]:
    return sorted(rows, key=lambda row: (-lengths[row], row))


def microbatches(lengths: Sequence[int], rows: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Cut rows, sorted by length, into batches of at most `max_tokens` with their padding.

    A row longer than `max_tokens` gets a batch of its own.
    """
    batches: list[list[int]] = []
    for row in longest_first(lengths, rows):
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
    left: list[int] = []  # tokens that still fit into each bin
    for row in longest_first(lengths, rows):
        fits = [place for place, space in enumerate(left) if space >= lengths[row]]
        best = min(fits, key=left.__getitem__, default=len(bins))
        if best == len(bins):
            bins.append([])
            left.append(max_tokens)
        bins[best].append(row)
        left[best] -= lengths[row]
    return bins


def own_batches(config, world, lengths: Sequence[int], rows: Sequence[int]) -> list[list[int]]:
    """This process's share of some rows, in micro-batches.

    Args:
        config: settings with `microbatch_tokens` and `pack`.
        lengths: of all rows.
    """
    mine = balanced_share([lengths[row] for row in rows], world.rank, world.size)
    cut = best_fit if config.pack else microbatches
    return cut(lengths, [rows[place] for place in mine], config.microbatch_tokens)


def own_groups(config, world, experience, rows: Sequence[int]) -> list[list[int]]:
    """As `own_batches`, where completions of a group stay together and share their prompt's tokens.

    A group that is longer than `microbatch_tokens` is cut; each part reads the prompt again.
    """
    parts: list[list[int]] = []
    lengths: list[int] = []
    size = config.group_size
    for row in rows:
        answer = len(experience.completion_ids[row])
        same = parts and parts[-1][0] // size == row // size
        if not same or lengths[-1] + answer > config.microbatch_tokens:
            parts.append([])
            lengths.append(len(experience.prompt_ids[row]))
        parts[-1].append(row)
        lengths[-1] += answer
    batches = own_batches(config, world, lengths, range(len(parts)))
    return [sum((parts[one] for one in batch), []) for batch in batches]


def pad_rows(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], pad_id: int
) -> tuple[Int[Tensor, "batch seq"], Bool[Tensor, "batch seq"]]:
    """Ids (prompt then completion, padded on the right) and the completion mask."""
    rows = [torch.tensor([*prompt, *completion]) for prompt, completion in zip(prompts, completions)]
    masks = [torch.arange(len(row)) >= len(prompt) for row, prompt in zip(rows, prompts)]
    return pad_sequence(rows, True, pad_id), pad_sequence(masks, True)
