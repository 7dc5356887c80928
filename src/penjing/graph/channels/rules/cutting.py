"""Ops that join, slice, split or pad axes: the labels are joined, sliced, split or padded alike."""

from typing import Any

import numpy as np
import torch
from torch import fx

from penjing.graph.channels.rules.table import (
    Axes,
    Axis,
    Labelling,
    Resizing,
    Value,
    fixed,
    pinned,
    resize,
    rule,
    set_argument,
)
from penjing.graph.ops import node_arguments

aten = torch.ops.aten


def _with(axes: Axes, axis: int, labels: Axis) -> Axes:
    axis %= len(axes)
    return (*axes[:axis], labels, *axes[axis + 1 :])


def _whole(labelling: Labelling, x: Value, axis: int) -> Axis:
    """Returns the labels of an axis to cut or join; pins a tiled axis, since the number of its indices isn't known."""
    labels = x.axes[axis]
    if labels is None or labels.size == x.shape[axis]:
        return labels
    labelling.pin(labels)
    return None


@rule(aten.cat.default, tiled=True)
def cat(labelling: Labelling, tensors: list[Value], axis: int = 0) -> Axes:
    """Concatenates the labels along the axis and ties all other axes."""
    tensors = [value for value in tensors if value.shape != (0,)]  # an old idiom starts from an empty tensor
    first = tensors[0]
    axis %= len(first.axes)
    for other in tensors[1:]:
        for i, (a, b) in enumerate(zip(first.axes, other.axes, strict=True)):
            if i != axis:
                labelling.tie(a, b)
    merged = [
        a[0] if all(labels is not None for labels in a) else None for a in zip(*(v.axes for v in tensors), strict=True)
    ]
    wholes = [_whole(labelling, value, axis) for value in tensors]
    free = any(labels is None and not fixed(v.shape[axis]) for v, labels in zip(tensors, wholes, strict=True))
    if free or all(labels is None for labels in wholes):
        pinned(labelling, tuple(wholes))  # behind a part of dynamic size the places of these indices aren't known
        return _with(tuple(merged), axis, None)
    parts = [np.zeros(v.shape[axis], np.int64) if a is None else a for v, a in zip(tensors, wholes, strict=True)]
    return _with(tuple(merged), axis, np.concatenate(parts))


@rule(aten.stack.default, tiled=True)
def stack(labelling: Labelling, tensors: list[Value], axis: int = 0) -> Axes:
    """Adds a new axis, and ties the tensors, which have the same shape, to each other."""
    for other in tensors[1:]:
        for a, b in zip(tensors[0].axes, other.axes, strict=True):
            labelling.tie(a, b)
    axis %= len(tensors[0].axes) + 1
    axes = tensors[0].axes
    return (*axes[:axis], None, *axes[axis:])


@rule(aten.slice.Tensor, tiled=True)
def slice_(labelling: Labelling, x: Value, axis: int = 0, start: Any = None, end: Any = None, step: Any = 1) -> Axes:
    """Slices the labels; with a step above 1, each run of `step` indices is tied. Pins an axis with dynamic bounds."""
    labels = _whole(labelling, x, axis)
    if labels is None or not all(isinstance(bound, int | None) for bound in (start, end, step)):
        labelling.pin(labels)
        return _with(x.axes, axis, None)
    low, high, _ = slice(start, end).indices(labels.size)
    if step > 1 and (low >= step or high < labels.size or labels.size % step):
        labelling.pin(labels)
        return _with(x.axes, axis, None)
    if step > 1:
        table = labels.reshape(-1, step)
        labelling.tie(np.repeat(table[:, 0], step), labels)
        return _with(x.axes, axis, table[:, 0])
    return _with(x.axes, axis, labels[start:end])


@resize(aten.slice.Tensor, aten.slice_scatter.default)
def resize_slice(resizing: Resizing, node: fx.Node) -> None:
    """Rewrites each bound as the number of remaining indices before it."""
    x, *_, axis, start, end, step = node_arguments(node)
    kept = resizing.kept(x, axis)
    if kept is None or kept.all():
        return
    if step > 1:
        set_argument(node, "end", int(kept.sum()))
        return
    low, high, _ = slice(start, end).indices(kept.size)
    set_argument(node, "start", int(kept[:low].sum()))
    set_argument(node, "end", int(kept[: max(low, high)].sum()))


@rule(aten.select.int, tiled=True)
def select(labelling: Labelling, x: Value, axis: int, index: int) -> Axes:
    """Pins the selected index and drops the axis."""
    labels = _whole(labelling, x, axis)
    if labels is not None:
        labelling.pin(labels if not isinstance(index, int) else labels[[index]])
    axis %= len(x.axes)
    return (*x.axes[:axis], *x.axes[axis + 1 :])


@resize(aten.select.int)
def resize_select(resizing: Resizing, node: fx.Node) -> None:
    """Rewrites the index as the number of remaining indices before it."""
    x, axis, index = node_arguments(node)
    kept = resizing.kept(x, axis)
    if kept is not None and isinstance(index, int):  # all indices stay before an index that isn't a constant
        set_argument(node, "index", int(kept[: index % kept.size].sum()))


def _pieces(labelling: Labelling, labels: Axis, sizes: list[int]) -> list[Axis]:
    if labels is None or sum(sizes) != labels.size:  # a dynamic split size makes each piece's size dynamic
        labelling.pin(labels)
        return [None] * len(sizes)
    return list(np.split(labels, np.cumsum(sizes)[:-1]))


@rule(
    aten.split_with_sizes.default,
    aten.split.Tensor,
    aten.split.sizes,
    aten.unsafe_split.Tensor,
    aten.chunk.default,
    aten.tensor_split.sections,
    tiled=True,
)
def split(labelling: Labelling, x: Value, _: Any, axis: int = 0) -> list[Axes]:
    """Splits the labels into pieces of the outputs' sizes."""
    count = len(labelling.node.meta["val"])
    sizes = [labelling.output(piece)[axis] for piece in range(count)]
    return [_with(x.axes, axis, piece) for piece in _pieces(labelling, _whole(labelling, x, axis), sizes)]


@resize(
    aten.split_with_sizes.default,
    aten.split.Tensor,
    aten.split.sizes,
    aten.unsafe_split.Tensor,
    aten.chunk.default,
    aten.tensor_split.sections,
)
def resize_split(resizing: Resizing, node: fx.Node) -> None:
    """Writes the new size of every piece, however the old sizes were given."""
    axis = node_arguments(node)[2]
    counts = [resizing.count(node, axis, piece) for piece in range(len(node.meta["val"]))]
    if None not in counts:
        node.target = aten.split_with_sizes.default
        node.args, node.kwargs = (node.args[0], counts, axis), {}


@rule(aten.unbind.int, tiled=True)
def unbind(labelling: Labelling, x: Value, axis: int = 0) -> list[Axes]:
    """Pins all indices, since each one is an output."""
    labelling.pin(x.axes[axis])
    axis %= len(x.axes)
    return [(*x.axes[:axis], *x.axes[axis + 1 :])] * len(labelling.node.meta["val"])


@rule(aten.pad.default, aten.constant_pad_nd.default)
def pad(labelling: Labelling, x: Value, widths: list[int], mode: Any = "constant", *_: Any) -> Axes:
    """Adds constant entries before and behind; each new index of a labelled axis gets a new label."""
    axes = list(x.axes)
    for position in range(len(widths) // 2):
        before, behind = widths[2 * position : 2 * position + 2]
        axis = len(axes) - 1 - position
        labels = axes[axis]
        if labels is None or (before, behind) == (0, 0):
            continue
        constant = mode == "constant" or not isinstance(mode, str)
        if not constant or not isinstance(before, int) or not isinstance(behind, int) or before < 0 or behind < 0:
            labelling.pin(labels)
            axes[axis] = None
            continue
        axes[axis] = np.concatenate([labelling.fresh(before), labels, labelling.fresh(behind)])
    return tuple(axes)


@resize(aten.pad.default, aten.constant_pad_nd.default)
def resize_pad(resizing: Resizing, node: fx.Node) -> None:
    """Writes the new padding: added indices stay where the indices tied to them stay."""
    widths = list(node.args[1])  # type: ignore[arg-type]
    rank = len(node.meta["val"].shape)
    for position in range(len(widths) // 2):
        if widths[2 * position : 2 * position + 2] != [0, 0]:
            widths[2 * position : 2 * position + 2] = resizing.added(node, rank - 1 - position)
    node.update_arg(1, widths)
