"""Ops that move, select or repeat entries."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from penjing.targets.litert._lowering import Held, Lowering, NoRule, Pad
from penjing.targets.litert.rules._table import rule
from penjing.targets.litert.rules.pointwise import cast

aten = torch.ops.aten

MOST_AXES = 6  # that XNNPACK's kernels take


def either(lowering: Lowering, x: Any) -> Held:
    """Returns a value as integers where it is rounded, as floats else: moving changes neither."""
    return lowering.integers(x) or lowering.held(x)


@rule(
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
)
def identity(lowering: Lowering, node: fx.Node) -> None:
    """Writes nothing."""
    pad = lowering.unpadded(node.args[0])  # type: ignore[arg-type]
    if pad.source is not node.args[0]:
        lowering.wait(node, pad)
    else:
        lowering.give(node, either(lowering, node.args[0]))


@rule(
    aten.reshape.default,
    aten.view.default,
    aten._unsafe_view.default,
    aten._reshape_copy.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.unsqueeze.default,
)
def reshape(lowering: Lowering, node: fx.Node) -> None:
    """Writes RESHAPE; where only axes of size 1 come or go, in whatever order the others are."""
    held = either(lowering, node.args[0])
    before, after = lowering.shape(node.args[0]), lowering.shape(node)
    if before == after:
        lowering.give(node, held)
        return
    pairs = _kept(before, after)
    if pairs is not None:
        order = [pairs[axis] for axis in held.order if before[axis] != 1]
        ones = [axis for axis, size in enumerate(after) if size == 1]
        for axis in ones:  # behind the axis that is before it in the graph
            place = 1 + max((order.index(known) for known in order if known < axis), default=-1)
            order.insert(place, axis)
        lowering.give(node, lowering.reshaped(held, [after[axis] for axis in order], order))
        return
    lowering.give(node, lowering.reshaped(lowering.plain(held), after))


def _kept(before: Sequence[int], after: Sequence[int]) -> dict[int, int] | None:
    """Returns where each axis goes, if all but axes of size 1 stay."""
    old = [axis for axis, size in enumerate(before) if size != 1]
    new = [axis for axis, size in enumerate(after) if size != 1]
    if [before[axis] for axis in old] != [after[axis] for axis in new]:
        return None
    return dict(zip(old, new, strict=True))


@rule(aten.permute.default, aten.transpose.int, aten.t.default, aten.mT.default, aten.numpy_T.default)
def permute(lowering: Lowering, node: fx.Node) -> None:
    """Writes nothing: the axes are held in another order from now on."""
    held = either(lowering, node.args[0])
    rank = len(held.order)
    arguments = lowering.arguments(node)
    if node.target is aten.permute.default:
        dims = [dim % rank for dim in arguments[1]]
    elif node.target is aten.transpose.int:
        dims = list(range(rank))
        first, second = (dim % rank for dim in arguments[1:])
        dims[first], dims[second] = second, first
    elif node.target is aten.mT.default:
        dims = [*range(rank - 2), rank - 1, rank - 2]
    else:
        dims = list(reversed(range(rank)))
    lowering.give(node, Held(held.index, tuple(dims.index(axis) for axis in held.order), held.grid))


@rule(aten.expand.default, aten.expand_copy.default)
def expand(lowering: Lowering, node: fx.Node) -> None:
    """Writes BROADCAST_TO."""
    held, shape = lowering.held(node.args[0]), lowering.shape(node)  # type: ignore[arg-type]
    if lowering.shape(node.args[0]) == shape:
        lowering.give(node, held)
        return
    held = lowering.plain(held)
    made = lowering.like(node)
    constant = lowering.file.constant(np.array(shape, np.int32), "shape")
    lowering.file.op("BROADCAST_TO", [held.index, constant], [made.index], kind="BroadcastToOptions")
    lowering.give(node, made)


@rule(aten.repeat.default)
def repeat(lowering: Lowering, node: fx.Node) -> None:
    """Writes TILE."""
    x, times = lowering.arguments(node)
    held = lowering.plain(lowering.held(x))
    missing = len(times) - len(held.order)
    if missing:
        held = lowering.reshaped(held, (*(1,) * missing, *lowering.file.shape(held.index)))
    made = lowering.like(node)
    constant = lowering.file.constant(np.array(times, np.int32), "times")
    lowering.file.op("TILE", [held.index, constant], [made.index], kind="TileOptions")
    lowering.give(node, made)


@rule(aten.slice.Tensor)
def slice_(lowering: Lowering, node: fx.Node) -> None:
    """Writes SLICE for this and for slices of other axes behind it; where entries are skipped, from a finer shape."""
    held, taken = either(lowering, node.args[0]), {}
    end = node
    while True:
        x, axis, start, stop, step = lowering.arguments(end)
        shape = lowering.shape(x)
        axis %= len(shape)
        begin, _, _ = slice(start, stop, step).indices(shape[axis])
        taken[axis] = (begin, lowering.shape(end)[axis], step)
        user = next(iter(end.users)) if len(end.users) == 1 else None
        if user is None or user.target is not aten.slice.Tensor or user.args[1] % len(shape) in taken:  # type: ignore[operator]
            break
        lowering.done(user)
        end = user
    lowering.give(end, _cut(lowering, held, taken))


def _cut(lowering: Lowering, held: Held, taken: Mapping[int, tuple[int, int, int]]) -> Held:
    """Writes the selection of some entries of axes.

    XNNPACK takes over only slices that skip nothing. So an axis of which every nth entry is taken is split into two, of which
    the second has n entries, one of them taken.

    Args:
        lowering: writes it.
        held: the value.
        taken: for each axis the first entry, how many are taken, and the step between them.
    """
    sizes = lowering.file.shape(held.index)
    fine: list[int] = []  # the finer shape, and what is taken of it
    begins: list[int] = []
    counts: list[int] = []
    steps: list[int] = []
    for axis, size in zip(held.order, sizes, strict=True):
        begin, count, step = taken.get(axis, (0, size, 1))
        if step > 1 and size % step == 0:
            fine += [size // step, step]
            begins += [begin // step, begin % step]
            counts += [count, 1]
            steps += [1, 1]
        else:
            fine.append(size)
            begins.append(begin)
            counts.append(count)
            steps.append(step)
    if len(fine) > MOST_AXES:
        fine, begins, counts, steps = [list(sizes), *_coarse(held, sizes, taken)]
    if fine == counts:
        return held
    source = held if fine == list(sizes) else lowering.reshaped(held, fine)
    made = lowering.make(counts, lowering.file.dtype(held.index), range(len(counts)), held.grid)
    if set(steps) == {1}:
        rows, name, kind = [begins, counts], "SLICE", "SliceOptions"
    else:
        ends = [begin + (count - 1) * step + 1 for begin, count, step in zip(begins, counts, steps, strict=True)]
        rows, name, kind = [begins, ends, steps], "STRIDED_SLICE", "StridedSliceOptions"
    constants = [lowering.file.constant(np.array(row, np.int32), "slice") for row in rows]
    lowering.file.op(name, [source.index, *constants], [made.index], kind=kind)
    shape = [taken[axis][1] if axis in taken else size for axis, size in zip(held.order, sizes, strict=True)]
    if counts == shape:
        return Held(made.index, held.order, held.grid)
    return lowering.reshaped(made, shape, held.order)


def _coarse(
    held: Held, sizes: Sequence[int], taken: Mapping[int, tuple[int, int, int]]
) -> tuple[list[int], list[int], list[int]]:
    """Returns what is taken of the axes as they are: first entries, counts and steps."""
    begins, counts, steps = zip(
        *(taken.get(axis, (0, size, 1)) for axis, size in zip(held.order, sizes, strict=True)), strict=True
    )
    return list(begins), list(counts), list(steps)


@rule(aten.select.int)
def select(lowering: Lowering, node: fx.Node) -> None:
    """Writes SLICE and RESHAPE."""
    x, axis, index = lowering.arguments(node)
    if isinstance(index, fx.Node):
        raise NoRule(node)
    shape = lowering.shape(x)
    axis %= len(shape)
    held = _cut(lowering, either(lowering, x), {axis: (index % shape[axis], 1, 1)})
    lowering.give(node, _without(lowering, held, axis))


def _without(lowering: Lowering, held: Held, axis: int) -> Held:
    """Writes the RESHAPE that drops an axis of size 1."""
    order = [one - (one > axis) for one in held.order if one != axis]
    place = held.order.index(axis)
    shape = [size for at, size in enumerate(lowering.file.shape(held.index)) if at != place]
    return lowering.reshaped(held, shape, order)


@rule(
    aten.chunk.default, aten.split.Tensor, aten.split.sizes, aten.split_with_sizes.default, aten.unbind.int,
    aten.tensor_split.sections,
)  # fmt: skip
def split(lowering: Lowering, node: fx.Node) -> None:
    """Writes a SLICE for each part."""
    arguments = lowering.arguments(node)
    held, parts, begin = either(lowering, arguments[0]), [], 0
    axis = arguments[-1] % len(held.order)
    drops = node.target is aten.unbind.int
    for value in lowering.values.of[node]:
        count = 1 if drops else value.shape[axis]
        part = _cut(lowering, held, {axis: (begin, count, 1)})
        parts.append(_without(lowering, part, axis) if drops else part)
        begin += count
    lowering.give_parts(node, parts)


@rule(aten.cat.default, aten.concat.default, aten.concatenate.default)
def concatenate(lowering: Lowering, node: fx.Node) -> None:
    """Writes CONCATENATION; integers are laid on one grid first, as its kernel wants."""
    given, axis = lowering.arguments(node)
    given = [one for one in given if lowering.shape(one) != (0,)]
    axis %= len(lowering.shape(node))
    rounded = lowering.rounded(node) if all(lowering.integers(one) for one in given) else None
    if rounded is None:
        dtype = lowering.dtype_of(node)
        held = [
            cast(lowering, lowering.held(one), dtype) if isinstance(one, fx.Node) else lowering.fixed(one, dtype)
            for one in given
        ]
        grid = None
    else:
        end, grid = rounded
        held = []
        for one in given:
            integers = lowering.integers(one)
            assert integers is not None and integers.grid is not None
            if (integers.grid.scale, integers.grid.zero) != (grid.scale, grid.zero):
                made = lowering.make(lowering.file.shape(integers.index), "int8", integers.order, grid)
                lowering.file.op("QUANTIZE", [integers.index], [made.index], kind="QuantizeOptions")
                integers = made
            held.append(integers)
    largest = max(held, key=lambda one: int(np.prod(lowering.file.shape(one.index))))
    held = [lowering.ordered(one, largest.order) for one in held]
    shape = lowering.shape(node)
    made = lowering.make(
        [shape[one] for one in largest.order], "int8" if grid else lowering.dtype_of(node), largest.order, grid
    )
    place = largest.order.index(axis)
    lowering.file.op(
        "CONCATENATION", [one.index for one in held], [made.index], kind="ConcatenationOptions", axis=place
    )
    if grid is None:
        lowering.give(node, made)
    else:
        lowering.give_rounded(end, made)


@rule(aten.pad.default, aten.constant_pad_nd.default)
def pad(lowering: Lowering, node: fx.Node) -> None:
    """Leaves zeros to whoever reads the value; writes PADV2 for other numbers and MIRROR_PAD for reflections."""
    x, amounts, *rest = lowering.arguments(node)
    mode, value = ("constant", rest[0]) if node.target is aten.constant_pad_nd.default else rest
    rank = len(lowering.shape(x))
    pairs = [(0, 0)] * rank
    for place in range(len(amounts) // 2):
        pairs[rank - 1 - place] = (amounts[2 * place], amounts[2 * place + 1])
    if any(min(pair) < 0 for pair in pairs) or mode not in ("constant", "reflect"):
        raise NoRule(node, f"{node.target} that cuts entries off, or in mode '{mode}'")
    if mode == "constant" and not value:
        lowering.wait(node, Pad(x, tuple(pairs)))
    elif mode == "constant":
        lowering.give(node, lowering.padded(lowering.held(x), pairs, float(value)))
    else:
        held = lowering.held(x)
        rows = np.array([pairs[axis] for axis in held.order], np.int32)
        made = lowering.like(node, held.order)
        constant = lowering.file.constant(rows, "paddings")
        lowering.file.op("MIRROR_PAD", [held.index, constant], [made.index], kind="MirrorPadOptions", mode=0)
        lowering.give(node, made)


@rule(aten.flip.default)
def flip(lowering: Lowering, node: fx.Node) -> None:
    """Writes REVERSE_V2, axis by axis."""
    x, axes = lowering.arguments(node)
    held = lowering.held(x)
    for axis in axes:
        place = held.order.index(axis % len(held.order))
        made = lowering.like(node, held.order)
        constant = lowering.file.constant(np.array([place], np.int32), "axis")
        lowering.file.op("REVERSE_V2", [held.index, constant], [made.index], kind="ReverseV2Options")
        held = made
    lowering.give(node, held)


@rule(aten.embedding.default)
def embedding(lowering: Lowering, node: fx.Node) -> None:
    """Writes GATHER from a constant table."""
    table, indices, *_ = lowering.arguments(node)
    _gathered(lowering, node, table, indices, 0)


@rule(aten.index_select.default)
def index_select(lowering: Lowering, node: fx.Node) -> None:
    """Writes GATHER."""
    x, axis, indices = lowering.arguments(node)
    _gathered(lowering, node, x, indices, axis % len(lowering.shape(x)))


@rule(aten.index.Tensor)
def index(lowering: Lowering, node: fx.Node) -> None:
    """Writes GATHER, where one axis is indexed."""
    x, indices = lowering.arguments(node)
    given = [(axis, one) for axis, one in enumerate(indices) if one is not None]
    value = given[0][1]
    dtype = lowering.dtype_of(value) if isinstance(value, fx.Node) else str(value.dtype)
    if len(given) != 1 or "bool" in dtype:
        raise NoRule(node, f"{node.target} on several axes, or by truth values")
    _gathered(lowering, node, x, value, given[0][0])


def _gathered(lowering: Lowering, node: fx.Node, x: Any, indices: Any, axis: int) -> None:
    held = lowering.plain(either(lowering, x)) if isinstance(x, fx.Node) else lowering.fixed(x)
    if isinstance(indices, fx.Node):
        places = cast(lowering, lowering.plain(lowering.held(indices)), "int32")
    else:
        size = lowering.shape(x)[axis]
        places = lowering.fixed(torch.where(indices < 0, indices + size, indices), "int32")
    shape = lowering.shape(node)
    made = lowering.make(shape, lowering.file.dtype(held.index), None, held.grid)
    lowering.file.op("GATHER", [held.index, places.index], [made.index], kind="GatherOptions", axis=axis)
    lowering.give(node, made)


@rule(aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default)
def nearest(lowering: Lowering, node: fx.Node) -> None:
    """Writes RESIZE_NEAREST_NEIGHBOR."""
    _check_factors(lowering, node, lowering.arguments(node)[2:])
    _resized(lowering, node, either(lowering, node.args[0]), "RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions")


@rule(aten.upsample_bilinear2d.vec, aten.upsample_bilinear2d.default)
def bilinear(lowering: Lowering, node: fx.Node) -> None:
    """Writes RESIZE_BILINEAR."""
    _, _, corners, *factors = lowering.arguments(node)
    if not corners:
        _check_factors(lowering, node, factors)
    held = lowering.held(node.args[0])  # type: ignore[arg-type]
    _resized(
        lowering, node, held, "RESIZE_BILINEAR", "ResizeBilinearOptions", alignCorners=bool(corners),
        halfPixelCenters=not corners,
    )  # fmt: skip


def _check_factors(lowering: Lowering, node: fx.Node, factors: Sequence[Any]) -> None:
    """Refuses a resize by factors after which a size was rounded: PyTorch reads by the factor, the format by the sizes' ratio."""
    sizes, wanted = lowering.shape(node.args[0])[2:], lowering.shape(node)[2:]
    numbers = factors[0] if isinstance(factors[0], list | tuple) else factors
    for size, out, factor in zip(sizes, wanted, numbers or (None, None), strict=True):
        if factor is not None and not math.isclose(size * factor, out):
            raise NoRule(node, f"{node.target} of {size} entries by {factor}, which is no whole number of entries")


def _resized(lowering: Lowering, node: fx.Node, held: Held, name: str, kind: str, **options: Any) -> None:
    held = lowering.ordered(held, (0, 2, 3, 1))
    batch, channels, *sizes = lowering.shape(node)
    made = lowering.make((batch, *sizes, channels), lowering.file.dtype(held.index), held.order, held.grid)
    constant = lowering.file.constant(np.array(sizes, np.int32), "size")
    lowering.file.op(name, [held.index, constant], [made.index], kind=kind, **options)
    lowering.give(node, made)
