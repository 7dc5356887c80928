"""Ops that make fewer entries of many: pools, means, sums, softmax."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from penjing.targets.litert._file import Grid
from penjing.targets.litert._lowering import Held, Lowering, NoRule
from penjing.targets.litert.rules._table import rule
from penjing.targets.litert.rules.layers import SAME, VALID, same_or_valid, spread
from penjing.targets.litert.rules.pointwise import cast

aten = torch.ops.aten

LARGEST_CODE = 127  # of a weight
LOWEST = float(np.finfo(np.float32).min)
IMAGE = (0, 2, 3, 1)  # the order in which pools want an image's axes


@rule(aten.max_pool2d.default)
def max_pool(lowering: Lowering, node: fx.Node) -> None:
    """Writes MAX_POOL_2D."""
    x, kernel, stride, padding, dilation, _ = lowering.arguments(node)
    kernel, padding, dilation = (spread(value, 2) for value in (kernel, padding, dilation))
    if any(step != 1 for step in dilation) or len(lowering.shape(x)) != 4:
        raise NoRule(node, f"{node.target} with a dilation, or on three axes")
    held = lowering.integers(x) or lowering.held(x)
    lowest = -128 if held.grid is not None else LOWEST
    _pooled(lowering, node, x, held, "MAX_POOL_2D", kernel, spread(stride or kernel, 2), padding, lowest)


@rule(aten.avg_pool2d.default)
def avg_pool(lowering: Lowering, node: fx.Node) -> None:
    """Writes AVERAGE_POOL_2D."""
    x, kernel, stride, padding, ceil, counts, divisor = lowering.arguments(node)
    kernel, padding = spread(kernel, 2), spread(padding, 2)
    stride = spread(stride or kernel, 2)
    if divisor is not None or len(lowering.shape(x)) != 4 or (ceil and any(padding)):
        raise NoRule(node, f"{node.target} with a divisor, on three axes, or with ceil_mode and padding")
    spans = zip(lowering.shape(x)[2:], lowering.shape(node)[2:], kernel, stride, strict=True)
    within = not any(padding) and all((count - 1) * step + width <= size for size, count, width, step in spans)
    held, rounded = operand(lowering, node, x) if within else (lowering.held(x), None)
    if rounded is not None:
        _averaged(lowering, held, kernel, stride, lowering.shape(node), *rounded)
    else:
        filler = 0.0 if counts and any(padding) else None
        _pooled(lowering, node, x, held, "AVERAGE_POOL_2D", kernel, stride, padding, filler)


def _pooled(
    lowering: Lowering,
    node: fx.Node,
    x: fx.Node,
    held: Held,
    name: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    filler: float | None,
) -> None:
    """Writes a pool.

    Args:
        lowering: writes it.
        node: the pool.
        x: its input.
        held: its input in the file.
        name: the op.
        kernel: height and width.
        stride: height and width.
        padding: height and width.
        filler: the number around the image that pools count; None where they count none.
    """
    given, wanted = lowering.shape(x)[2:], lowering.shape(node)[2:]
    amounts = [
        (pad, max((count - 1) * step + width - size - pad, 0))
        for size, count, width, step, pad in zip(given, wanted, kernel, stride, padding, strict=True)
    ]
    # Windows that reach beyond the image count what is in it, as SAME does; zeros that are counted need a PAD.
    kind = same_or_valid(amounts, given, kernel, stride, (1, 1))
    counts_zeros = name == "AVERAGE_POOL_2D" and filler is not None
    held = lowering.ordered(held, IMAGE)
    if kind is None or (kind == SAME and counts_zeros and any(map(any, amounts))):
        if filler is None:
            raise NoRule(node, f"{node.target} with such windows at the borders")
        value = None if counts_zeros else filler
        held, kind = lowering.padded(held, [(0, 0), (0, 0), *amounts], value), VALID
    batch, channels, *sizes = lowering.shape(node)
    made = lowering.make((batch, *sizes, channels), lowering.file.dtype(held.index), IMAGE, held.grid)
    lowering.file.op(
        name, [held.index], [made.index], kind="Pool2DOptions", padding=kind, strideH=stride[0], strideW=stride[1],
        filterHeight=kernel[0], filterWidth=kernel[1],
    )  # fmt: skip
    lowering.give(node, made)


def operand(lowering: Lowering, node: fx.Node, x: fx.Node) -> tuple[Held, tuple[fx.Node, Grid] | None]:
    """Returns an op's input, as integers where its output is rounded too; and what rounds the output."""
    held = lowering.integers(x)
    rounded = lowering.rounded(node) if held is not None else None
    return (held, rounded) if held is not None and rounded is not None else (lowering.held(x), None)


def _averaged(
    lowering: Lowering,
    held: Held,
    kernel: Sequence[int],
    stride: Sequence[int],
    shape: Sequence[int],
    end: fx.Node,
    grid: Grid,
) -> None:
    """Writes an average of integers as DEPTHWISE_CONV_2D: the kernel of AVERAGE_POOL_2D can't give another grid."""
    held = lowering.ordered(held, IMAGE)
    batch, channels, *sizes = shape
    made = lowering.make((batch, *sizes, channels), "int8", IMAGE, grid)
    area = kernel[0] * kernel[1]
    scale = 1 / (area * LARGEST_CODE)
    weight = np.full((1, *kernel, channels), LARGEST_CODE, np.int8)
    assert held.grid is not None and isinstance(held.grid.scale, float)
    own = Grid((float(np.float32(scale)),) * channels, axis=3)
    sums = Grid((float(np.float32(scale * held.grid.scale)),) * channels)
    constants = [
        lowering.file.constant(weight, "weight", own),
        lowering.file.constant(np.zeros(channels, np.int32), "bias", sums),
    ]
    lowering.file.macs[len(lowering.file.operators)] = 0  # the graph's op counts as free of products
    lowering.file.op(
        "DEPTHWISE_CONV_2D", [held.index, *constants], [made.index], kind="DepthwiseConv2DOptions", padding=VALID,
        strideH=stride[0], strideW=stride[1], depthMultiplier=1, dilationHFactor=1, dilationWFactor=1,
    )  # fmt: skip
    lowering.give_rounded(end, made)


@rule(aten.adaptive_avg_pool2d.default)
def adaptive_avg_pool(lowering: Lowering, node: fx.Node) -> None:
    """Writes MEAN where one entry is left, AVERAGE_POOL_2D where all windows are alike, else the mean of each window."""
    x: Any = node.args[0]
    sizes, wanted = lowering.shape(x)[-2:], lowering.shape(node)[-2:]
    if wanted == (1, 1):
        rank = len(lowering.shape(x))
        reduced(lowering, node, x, "MEAN", [rank - 2, rank - 1], True, integer=True)
    elif all(size % count == 0 for size, count in zip(sizes, wanted, strict=True)) and len(lowering.shape(x)) == 4:
        kernel = [size // count for size, count in zip(sizes, wanted, strict=True)]
        held, rounded = operand(lowering, node, x)
        if rounded is not None:
            _averaged(lowering, held, kernel, kernel, lowering.shape(node), *rounded)
        else:
            _pooled(lowering, node, x, held, "AVERAGE_POOL_2D", kernel, kernel, (0, 0), None)
    else:
        lowering.expand(node, lambda x, bins: _binned(x, bins, lambda window, axis: window.mean(axis, keepdim=True)))


def _binned(x: Any, bins: Any, reduce: Any) -> Any:
    """Reduces each bin, rows first: bin i of n over a size s is floor(i·s/n) … ceil((i + 1)·s/n)."""
    for axis, wanted in zip((-2, -1), spread(bins, 2), strict=True):
        size = x.shape[axis]
        count = size if wanted is None else wanted
        edges = [(at * size // count, -(-(at + 1) * size // count)) for at in range(count)]
        x = torch.cat([reduce(x.narrow(axis, low, high - low), axis) for low, high in edges], axis)
    return x


@rule(aten.adaptive_max_pool2d.default)
def adaptive_max_pool(lowering: Lowering, node: fx.Node) -> None:
    """Writes the largest value of each window; the positions of these values aren't written."""
    if any(user.args[1] == 1 and user.users for user in node.users):
        raise NoRule(node, f"{node.target} with indices")
    lowering.expand(node, lambda x, bins: (_binned(x, bins, lambda window, axis: window.amax(axis, True)), None))


def reduced(
    lowering: Lowering,
    node: fx.Node,
    x: Any,
    name: str,
    axes: Sequence[int],
    keep: bool,
    *,
    integer: bool = False,
    kind: str = "ReducerOptions",
) -> None:
    """Writes an op that reduces axes."""
    held, rounded = operand(lowering, node, x) if integer else (lowering.held(x), None)
    end, grid = rounded or (node, None)
    rank = len(held.order)
    gone = {axis % rank for axis in axes} or set(range(rank))
    places = [place for place, axis in enumerate(held.order) if axis in gone]
    sizes = lowering.file.shape(held.index)
    if keep:
        order, shape = held.order, [1 if axis in gone else size for axis, size in zip(held.order, sizes, strict=True)]
    else:
        left = [axis for axis in range(rank) if axis not in gone]
        order = tuple(left.index(axis) for axis in held.order if axis not in gone)
        shape = [size for axis, size in zip(held.order, sizes, strict=True) if axis not in gone]
    made = lowering.make(shape, "int8" if grid else lowering.dtype_of(node), order, grid)
    constant = lowering.file.constant(np.array(places, np.int32), "axes")
    lowering.file.op(name, [held.index, constant], [made.index], kind=kind, keepDims=keep)
    (lowering.give if grid is None else lowering.give_rounded)(end, made)


def _reduces(name: str, *targets: Any, integer: bool = False) -> None:
    @rule(*targets)
    def write(lowering: Lowering, node: fx.Node) -> None:
        x, *rest = lowering.arguments(node)
        axes, keep = rest[:2] if len(rest) > 1 else (None, False)  # `mean.default` takes no axes
        axes = [] if axes is None else [axes] if isinstance(axes, int) else axes
        if lowering.dtype_of(node) != lowering.dtype_of(x):
            raise NoRule(node, f"{node.target} to another dtype")
        reduced(lowering, node, x, name, axes, bool(keep), integer=integer)


_reduces("MEAN", aten.mean.dim, aten.mean.default, integer=True)
_reduces("SUM", aten.sum.dim_IntList)
_reduces("REDUCE_MAX", aten.amax.default)
_reduces("REDUCE_MIN", aten.amin.default)
_reduces("REDUCE_PROD", aten.prod.dim_int)
_reduces("REDUCE_ANY", aten.any.dim, aten.any.dims)
_reduces("REDUCE_ALL", aten.all.dim, aten.all.dims)


def _over_last(lowering: Lowering, node: fx.Node, name: str, kind: str, **options: Any) -> None:
    """Writes an op that works along the last axis of the file's tensor."""
    x, axis, *_ = lowering.arguments(node)
    held = lowering.held(x)
    axis %= len(held.order)
    held = lowering.ordered(held, (*(one for one in held.order if one != axis), axis))
    made = lowering.like(node, held.order)
    lowering.file.op(name, [held.index], [made.index], kind=kind, **options)
    lowering.give(node, made)


@rule(aten.softmax.int, aten._softmax.default)
def softmax(lowering: Lowering, node: fx.Node) -> None:
    """Writes SOFTMAX."""
    _over_last(lowering, node, "SOFTMAX", "SoftmaxOptions", beta=1.0)


@rule(aten.log_softmax.int, aten._log_softmax.default)
def log_softmax(lowering: Lowering, node: fx.Node) -> None:
    """Writes LOG_SOFTMAX."""
    _over_last(lowering, node, "LOG_SOFTMAX", "LogSoftmaxOptions")


@rule(aten.argmax.default, aten.argmin.default)
def argmax(lowering: Lowering, node: fx.Node) -> None:
    """Writes ARG_MAX or ARG_MIN along one axis."""
    x, axis, keep = lowering.arguments(node)
    if axis is None:
        raise NoRule(node, f"{node.target} over all axes")
    held = lowering.held(x)
    rank = len(held.order)
    axis %= rank
    held = lowering.plain(held)
    made = lowering.make([size for at, size in enumerate(lowering.shape(x)) if at != axis], "int64")
    name, kind = ("ARG_MAX", "ArgMaxOptions") if node.target is aten.argmax.default else ("ARG_MIN", "ArgMinOptions")
    constant = lowering.file.constant(np.array([axis], np.int32), "axis")
    lowering.file.op(name, [held.index, constant], [made.index], kind=kind, outputType=4)
    lowering.give(node, lowering.reshaped(made, lowering.shape(node)) if keep else made)


@rule(aten.cumsum.default)
def cumsum(lowering: Lowering, node: fx.Node) -> None:
    """Writes CUMSUM."""
    x, axis, *_ = lowering.arguments(node)
    held = lowering.held(x)
    place = held.order.index(axis % len(held.order))
    made = lowering.like(node, held.order)
    constant = lowering.file.constant(np.array([place], np.int32), "axis")
    lowering.file.op("CUMSUM", [held.index, constant], [made.index], kind="CumsumOptions")
    lowering.give(node, made)


@rule(aten.topk.default)
def topk(lowering: Lowering, node: fx.Node) -> None:
    """Writes TOPK_V2 for the largest entries along the last axis."""
    x, count, axis, biggest, _ = lowering.arguments(node)
    held = lowering.held(x)
    axis %= len(held.order)
    if not biggest:
        raise NoRule(node, f"{node.target} of the smallest entries")
    order = (*(one for one in held.order if one != axis), axis)
    held = lowering.ordered(held, order)
    shape = [*lowering.file.shape(held.index)[:-1], count]
    parts = [lowering.make(shape, kind, order) for kind in (lowering.dtype_of(x), "int32")]
    constant = lowering.file.constant(np.array(count, np.int32), "count")
    lowering.file.op("TOPK_V2", [held.index, constant], [one.index for one in parts], kind="TopKV2Options")
    lowering.give_parts(node, [parts[0], cast(lowering, parts[1], "int64")])
