"""Fourth rung: the head's matrix product in Triton, with the softmax in its epilogue.

Logits live in registers, one tile at a time. Forward is one product that leaves a few numbers for
each row and split of the vocabulary, which `combine` merges. Backward computes each tile again and
writes the gradient of its logits into a workspace for one wave of rows, which two ordinary matrix
products turn into the gradients of the hidden states and of the weight.

The vocabulary is always cut into the same 33 splits, whatever the number of rows, and nothing is
added atomically: a row's result has the same bits alone, in any batch, in any order.

Scores are kept raw (not divided by the temperature) and scaled inside the exponential, in base 2:
e^((x - top)/T) = 2^(x c - top c) with c = log2(e)/T. That is one fused multiply-add and one
exponential for each logit, the least that a softmax can do.

Both matrices are read through descriptors: the copy engine of Hopper computes the addresses, which
saves some eighty registers. Rows must be a multiple of 16 bytes, as those of all real models are.

`no_type_check` keeps the tests' shape checker from wrapping functions that Triton compiles.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from r1lab.kernels.reference import wide

LOG2E = 1.4426950408889634
LN2 = tl.constexpr(0.6931471805599453)
# Set when Triton's interpreter runs the kernels on a CPU: it cannot multiply 16-bit tiles.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
# Triton 3.10 stops fusing multiply and add unless asked to, which would change the last bits.
LAUNCH = {"enable_fp_fusion": True}

PROCESSORS = 132  # of an H100; waves are cut so that they fill it evenly, results never depend on it
TILE_ROWS = 128
COMBINE_ROWS = 32  # of a program that merges splits
SPLITS = 33  # of the vocabulary: with 4 tiles of rows, one program for each processor
GATHER_BYTES = 12 * 2**20  # rows of a forward wave: they stay in the L2 cache for every tile
WORKSPACE_BYTES = 820 * 2**20  # gradients of the logits of a backward wave


def tile_for(dtype, entropy_forward, hopper):
    """Choose a tile by what fits registers (255 a thread) and shared memory (227 KB).

    Returns: a tile's columns, the hidden numbers that are summed at a time, and pipeline stages.
    """
    if dtype.itemsize > 2:
        return 64, 16, 3
    if not hopper:
        return 128, 32, 3
    # The moment needs registers: at 256 columns they would spill.
    return (128, 64, 4) if entropy_forward else (256, 64, 3)


@triton.jit
@no_type_check
def logits_tile(x, weight, row, column, depth, SUM: tl.constexpr):
    """x[row:] @ weight[column:].T, one tile, summed in fp32 and never rounded.

    Traffic: a tile's rows and columns, each a hidden vector, from the L2 cache.
    """
    ROWS: tl.constexpr = x.block_shape[0]
    COLUMNS: tl.constexpr = weight.block_shape[0]
    DEPTH: tl.constexpr = x.block_shape[1]
    tile = tl.zeros([ROWS, COLUMNS], SUM)
    for start in range(0, depth, DEPTH):
        a = x.load([row, start])
        b = weight.load([column, start])
        if INTERPRETED:
            a = a.to(SUM)
            b = b.to(SUM)
        tile = tl.dot(a, b.T, tile, input_precision="ieee", out_dtype=SUM)
    return tile


@triton.jit
@no_type_check
def fold(top, mass, moment, x, scale, ENTROPY: tl.constexpr):
    """Fold the columns of x [rows, columns] into the running statistics [rows].

    top = max x, mass = sum e^((x - top)/T), moment = sum e^((x - top)/T) (x - top). When the
    maximum grows, the old mass shrinks by r = e^((top - new)/T) and the old moment becomes
    r (moment + mass (top - new)). A column past the vocabulary is -inf: it adds nothing, and
    nothing may multiply it (0 * -inf is NaN). Registers only, no memory traffic.
    """
    new = tl.maximum(top, tl.max(x, 1))
    e = tl.exp2(x * scale - (new * scale)[:, None])
    shrink = tl.exp2((top - new) * scale)
    if ENTROPY:
        shift = tl.where(top == float("-inf"), 0.0, top - new)
        gap = tl.where(x == float("-inf"), 0.0, x - new[:, None])
        moment = shrink * (moment + mass * shift) + tl.sum(e * gap, 1)
    return new, shrink * mass + tl.sum(e, 1), moment


@triton.jit
@no_type_check
def linear_statistics(
    x, weight, ids, statistics, chosens, height, width, depth, scale,
    SPLITS: tl.constexpr, ENTROPY: tl.constexpr,
):  # fmt: skip
    """Compute (top, mass, moment) of each row over one split of the vocabulary, and its score.

    A program walks the tiles of its split and folds each into the running statistics. Programs
    that run together take different rows of the same split, so a tile of the weight is fetched
    once for all of them. Traffic for a wave: weight and rows once, 12 bytes a row and split.
    """
    ROWS: tl.constexpr = x.block_shape[0]
    COLUMNS: tl.constexpr = weight.block_shape[0]
    SUM: tl.constexpr = statistics.dtype.element_ty
    row_tiles = tl.cdiv(height, ROWS)
    row = tl.program_id(0) % row_tiles * ROWS
    split = tl.program_id(0) // row_tiles
    rows = row + tl.arange(0, ROWS)
    chosen_ids = tl.load(ids + rows, mask=rows < height, other=-1)
    top = tl.full([ROWS], float("-inf"), SUM)
    mass = tl.zeros([ROWS], SUM)
    moment = tl.zeros([ROWS], SUM)
    span = tl.cdiv(tl.cdiv(width, COLUMNS), SPLITS) * COLUMNS
    for column in range(split * span, tl.minimum(split * span + span, width), COLUMNS):
        z = logits_tile(x, weight, row, column, depth, SUM)
        columns = column + tl.arange(0, COLUMNS)
        hit = (chosen_ids >= column) & (chosen_ids < column + COLUMNS)
        if tl.max(hit.to(tl.int32), 0) > 0:  # few tiles hold a chosen token
            score = tl.sum(tl.where(columns[None, :] == chosen_ids[:, None], z, 0.0), 1)
            tl.store(chosens + rows, score, mask=hit)
        if column + COLUMNS > width:  # the last tile: columns past the vocabulary are no tokens
            z = tl.where(columns[None, :] < width, z, float("-inf"))
        top, mass, moment = fold(top, mass, moment, z, scale, ENTROPY)
    places = statistics + split * height + rows
    plane = SPLITS * height
    tl.store(places, top, mask=rows < height)
    tl.store(places + plane, mass, mask=rows < height)
    tl.store(places + 2 * plane, moment, mask=rows < height)


@triton.jit
@no_type_check
def combine(statistics, chosens, out, height, scale, SPLITS: tl.constexpr, ROWS: tl.constexpr):
    """Merge the splits' statistics, always in the same order, into (logp, entropy, lse) in nats.

    With best = max top: mass = sum r_s mass_s and moment = sum r_s (moment_s + mass_s (top_s -
    best)), where r_s = e^((top_s - best)/T). Then logp = (chosen - best)/T - ln mass, entropy =
    ln mass - moment / (mass T), lse = best/T + ln mass. Traffic: the statistics once, three
    numbers a row.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < height
    at = tl.minimum(rows, height - 1)
    splits = tl.arange(0, triton.next_power_of_2(SPLITS))[None, :]
    places = statistics + splits * height + at[:, None]
    plane = SPLITS * height
    top = tl.load(places, mask=splits < SPLITS, other=float("-inf"))
    masses = tl.load(places + plane, mask=splits < SPLITS, other=0.0)
    moment = tl.load(places + 2 * plane, mask=splits < SPLITS, other=0.0)
    best = tl.max(top, 1)
    shrink = tl.exp2((top - best[:, None]) * scale)
    mass = tl.sum(shrink * masses, 1)
    log_mass = tl.log2(mass)
    moment += masses * tl.where(top == float("-inf"), 0.0, top - best[:, None])
    entropy = (log_mass - scale * tl.sum(shrink * moment, 1) / mass) * LN2
    logp = tl.minimum((tl.load(chosens + at) - best) * scale - log_mass, 0.0) * LN2
    tl.store(out + rows, logp, mask=inside)
    tl.store(out + height + rows, entropy, mask=inside)
    tl.store(out + 2 * height + rows, (best * scale + log_mass) * LN2, mask=inside)


@triton.jit
@no_type_check
def linear_dlogits(
    x, weight, ids, lse, coefficients, out, height, width, depth, stride, scale,
    ENTROPY: tl.constexpr,
):  # fmt: skip
    """Compute one tile of logits again, and dL/dlogits = target 1[id] - p (linear + log ln p).

    The chosen column's two terms meet in full precision; rounding comes after, once. Were p
    rounded first, a token of probability 0.999 would get no gradient at all. Traffic: as
    `linear_statistics`, and the tile's gradient written once, in the dtype of the inputs.
    """
    ROWS: tl.constexpr = x.block_shape[0]
    COLUMNS: tl.constexpr = weight.block_shape[0]
    row_tiles = tl.cdiv(height, ROWS)
    row = tl.program_id(0) % row_tiles * ROWS
    column = tl.program_id(0) // row_tiles * COLUMNS
    z = logits_tile(x, weight, row, column, depth, lse.dtype.element_ty)
    rows = (row + tl.arange(0, ROWS))[:, None]
    columns = (column + tl.arange(0, COLUMNS))[None, :]
    at = tl.minimum(rows, height - 1)  # rows past the end are computed and not stored
    log2_p = z * scale - tl.load(lse + at) / LN2
    hit = tl.where(columns == tl.load(ids + at), tl.load(coefficients + at), 0.0)
    factor = tl.load(coefficients + height + at)
    if ENTROPY:
        factor += tl.load(coefficients + 2 * height + at) * LN2 * log2_p
    dz = hit - tl.exp2(log2_p) * factor
    places = out + rows.to(tl.int64) * stride + columns
    tl.store(places, dz.to(out.dtype.element_ty), mask=(rows < height) & (columns < width))


def forward_rows(weight):
    """Rows of a forward wave: whole rounds of programs, within `GATHER_BYTES`."""
    step = TILE_ROWS * PROCESSORS // SPLITS  # so many rows are one program for each processor
    return max(1, GATHER_BYTES // (weight.shape[1] * weight.itemsize) // step) * step


def backward_rows(weight):
    """Rows of a backward wave: one 128 x 256 tile of dX for each processor, if it fits."""
    whole = max(1, PROCESSORS // triton.cdiv(weight.shape[1], 256))
    fitting = WORKSPACE_BYTES // (stride_of(weight) * weight.itemsize) // TILE_ROWS
    return TILE_ROWS * max(1, min(whole, fitting))


def stride_of(weight):
    """Columns of the workspace: the vocabulary, padded so that matrix products read it fast."""
    return triton.cdiv(len(weight), 64) * 64


def operands(x, weight, entropy_forward):
    """Describe both matrices in tiles, and say how a kernel that multiplies them is launched."""
    hopper = not x.is_cuda or torch.cuda.get_device_capability(x.device)[0] >= 9
    columns, depth, stages = tile_for(x.dtype, entropy_forward, hopper)
    matrices = [
        TensorDescriptor.from_tensor(matrix.contiguous(), [size, depth])
        for matrix, size in ((x, TILE_ROWS), (weight, columns))
    ]
    return matrices, {**LAUNCH, "num_warps": 8, "num_stages": stages}


def linear_forward(x, weight, ids, temperature, entropy):
    """Compute (logp, entropy, lse) [n] of a wave x [n, hidden], weight [vocab, hidden], ids [n]."""
    (n, depth), wide_dtype, scale = x.shape, wide(x.dtype), LOG2E / temperature
    statistics = x.new_empty(3, SPLITS, n, dtype=wide_dtype)
    chosen, out = x.new_empty(n, dtype=wide_dtype), x.new_empty(3, n, dtype=wide_dtype)
    matrices, options = operands(x, weight, entropy)
    linear_statistics[(triton.cdiv(n, TILE_ROWS) * SPLITS,)](
        *matrices, ids.int(), statistics, chosen, n, len(weight), depth, scale,
        SPLITS=SPLITS, ENTROPY=entropy, **options,
    )  # fmt: skip
    combine[(triton.cdiv(n, COMBINE_ROWS),)](
        statistics, chosen, out, n, scale, SPLITS=SPLITS, ROWS=COMBINE_ROWS, num_warps=4, **LAUNCH
    )
    return out.unbind()


def dlogits(x, weight, ids, lse, coefficients, temperature, entropy):
    """Compute the gradient of all logits of a wave: (all columns, their weights, dL/dlogits)."""
    (n, depth), width, stride = x.shape, len(weight), stride_of(weight)
    dz = x.new_empty(n, stride)[:, :width]
    matrices, options = operands(x, weight, entropy_forward=False)
    tiles = triton.cdiv(n, TILE_ROWS) * triton.cdiv(width, matrices[1].block_shape[0])
    linear_dlogits[(tiles,)](
        *matrices, ids.int(), lse, coefficients.contiguous(), dz, n, width, depth, stride,
        LOG2E / temperature, ENTROPY=entropy, **options,
    )  # fmt: skip
    return [(slice(None), weight, dz)]
