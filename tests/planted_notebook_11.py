"""Solutions of notebook 11's exercises: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import torch

RIGHT, WRONG = {}, {}

# ---- online_softmax(top, mass, block) ------------------------------------------------------------


def folded(top, mass, block):
    new = torch.maximum(top, block.max())
    return torch.stack([new, mass * (top - new).exp() + (block - new).exp().sum()])


def number_by_number(top, mass, block):
    for x in block:
        new = max(top, x)
        mass = mass * torch.exp(top - new) + torch.exp(x - new)
        top = new
    return torch.stack([top, mass])


def through_the_log(top, mass, block):
    total = torch.logaddexp(top + mass.log(), block.logsumexp(0))
    new = torch.maximum(top, block.max())
    return torch.stack([new, (total - new).exp()])


def from_the_blocks_maximum(top, mass, block):
    new = block.max()
    return torch.stack([new, mass * (top - new).exp() + (block - new).exp().sum()])


def old_mass_kept(top, mass, block):
    new = torch.maximum(top, block.max())
    return torch.stack([new, mass + (block - new).exp().sum()])


def rescaled_upwards(top, mass, block):
    new = torch.maximum(top, block.max())
    return torch.stack([new, mass * (new - top).exp() + (block - new).exp().sum()])


def no_maximum(top, mass, block):
    new = torch.maximum(top, block.max())
    return torch.stack([new, (mass * top.exp() + block.exp().sum()) * (-new).exp()])


def block_alone(top, mass, block):
    new = torch.maximum(top, block.max())
    return torch.stack([new, (block - new).exp().sum()])


def mass_of_the_blocks_own_maximum(top, mass, block):
    new = torch.maximum(top, block.max())
    return torch.stack([new, mass * (top - new).exp() + (block - block.max()).exp().sum()])


RIGHT["online_softmax"] = {
    "block at once": folded,
    "number by number": number_by_number,
    "by logaddexp": through_the_log,
}
WRONG["online_softmax"] = {
    "the block's maximum replaces a larger one": from_the_blocks_maximum,
    "the old mass is not rescaled": old_mass_kept,
    "rescaled the wrong way": rescaled_upwards,
    "new scores below the old maximum": lambda top, mass, block: (
        torch.stack([torch.maximum(top, block.max()), mass + (block - top).exp().sum()])
    ),
    "exponentials without a maximum": no_maximum,
    "the maximum starts at 0": lambda top, mass, block: folded(top.clamp(min=0), mass, block),
    "the old mass is forgotten": block_alone,
    "the block's mass below its own maximum": mass_of_the_blocks_own_maximum,
    "mass and top exchanged": lambda top, mass, block: folded(top, mass, block).flip(0),
    "one number": lambda top, mass, block: folded(top, mass, block)[1],
}

# ---- target_in_tile(z, first, ids, chosen) -------------------------------------------------------


def by_comparison(z, first, ids, chosen):
    hit = torch.arange(first, first + z.shape[1]) == ids[:, None]
    return chosen + torch.where(hit, z, 0.0).sum(1)


def by_gather(z, first, ids, chosen):
    at = ids - first
    inside = (at >= 0) & (at < z.shape[1])
    return torch.where(inside, z.gather(1, at.clamp(0, z.shape[1] - 1)[:, None])[:, 0], chosen)


def row_by_row(z, first, ids, chosen):
    out = chosen.clone()
    for row, at in enumerate((ids - first).tolist()):
        if 0 <= at < z.shape[1]:
            out[row] = z[row, at]
    return out


def gathered(z, at):
    return z.gather(1, at.clamp(0, z.shape[1] - 1)[:, None])[:, 0]


def past_the_upper_edge(z, first, ids, chosen):
    inside = (ids >= first) & (ids <= first + z.shape[1])
    return torch.where(inside, gathered(z, ids - first), chosen)


def without_the_lower_edge(z, first, ids, chosen):
    inside = (ids > first) & (ids < first + z.shape[1])
    return torch.where(inside, gathered(z, ids - first), chosen)


def by_the_global_id(z, first, ids, chosen):
    inside = (ids >= first) & (ids < first + z.shape[1])
    return torch.where(inside, gathered(z, ids), chosen)


def multiplied_by_a_mask(z, first, ids, chosen):
    hit = torch.arange(first, first + z.shape[1]) == ids[:, None]
    return chosen + (z * hit).sum(1)


RIGHT["target_in_tile"] = {
    "compare and sum": by_comparison,
    "gather, then select": by_gather,
    "row by row": row_by_row,
}
WRONG["target_in_tile"] = {
    "one column too far": past_the_upper_edge,
    "the tile's first column left out": without_the_lower_edge,
    "clamped in place of looked up": lambda z, first, ids, a: gathered(z, ids - first),
    "earlier tiles' ids overwritten": lambda z, first, ids, chosen: (
        torch.where(ids < first + z.shape[1], gathered(z, ids - first), chosen)
    ),
    "the id is not counted from the tile": by_the_global_id,
    "what earlier tiles found is forgotten": lambda z, first, ids, chosen: (
        by_comparison(z, first, ids, torch.zeros_like(chosen))
    ),
    "0 times -inf": multiplied_by_a_mask,
    "written into its argument": lambda z, first, ids, a: a.copy_(by_comparison(z, first, ids, a)),
}
