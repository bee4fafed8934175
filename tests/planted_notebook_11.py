"""Solutions of notebook 11's exercises: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import torch
from tests.planted_edits import edited, edits

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


RIGHT["online_softmax"] = {
    "block at once": folded, "number by number": number_by_number, "by logaddexp": through_the_log,
}  # fmt: skip
WRONG["online_softmax"] = {
    "the maximum starts at 0": lambda top, mass, block: folded(top.clamp(min=0), mass, block),
    "mass and top exchanged": lambda top, mass, block: folded(top, mass, block).flip(0),
    "one number": lambda top, mass, block: folded(top, mass, block)[1],
} | edits(folded, {
    "the block's maximum replaces a larger one": ("torch.maximum(top, block.max())", "block.max()"),
    "the old mass is not rescaled": (" * (top - new).exp()", ""),
    "rescaled the wrong way": ("top - new", "new - top"),
    "new scores below the old maximum": (" * (top - new).exp()", "", "block - new", "block - top"),
    "exponentials without a maximum": (
        "(top - new).exp()", "top.exp() / new.exp()", "(block - new).exp()", "(block.exp() / new.exp())"),
    "the old mass is forgotten": ("mass * (top - new).exp() + ", ""),
    "the block's mass below its own maximum": ("block - new", "block - block.max()"),
})  # fmt: skip

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


RIGHT["target_in_tile"] = {
    "compare and sum": by_comparison, "gather, then select": by_gather, "row by row": row_by_row,
}  # fmt: skip
WRONG["target_in_tile"] = {
    "0 times -inf": edited(by_comparison, "torch.where(hit, z, 0.0)", "(z * hit)"),
    "written into its argument": lambda z, first, ids, a: a.copy_(by_comparison(z, first, ids, a)),
} | edits(by_gather, {
    "one column too far": ("at < z", "at <= z"),
    "the tile's first column left out": ("at >= 0", "at > 0"),
    "clamped in place of looked up": ("where(inside", "where(at == at"),
    "earlier tiles' ids overwritten": ("(at >= 0) & ", ""),
    "the id is not counted from the tile": ("(1, at.clamp", "(1, ids.clamp"),
    "what earlier tiles found is forgotten": ("[:, 0], chosen", "[:, 0], 0.0"),
})  # fmt: skip
