"""Ops that select entries by position, repeat them or rearrange them."""

from typing import Any

import numpy as np
import torch
from torch import fx

from penjing.graph.channels.rules.elementwise import broadcast
from penjing.graph.channels.rules.table import Axes, Labelling, Resizing, Uncovered, Value, resize, rule, set_argument

aten = torch.ops.aten


def _replaced(axes: Axes, axis: int, *labels: Any) -> Axes:
    axis %= len(axes)
    return (*axes[:axis], *labels, *axes[axis + 1 :])


@rule(aten.index.Tensor)
def index(labelling: Labelling, x: Value, indices: list[Value | None]) -> Axes:
    """Pins the indexed axes, since their positions have a meaning; the axes of the indices replace them."""
    given: Any = labelling.node.args[1]
    if any(node is not None and node.meta["val"].dtype in (torch.bool, torch.uint8) for node in given):
        raise Uncovered("a mask picks entries")
    places = [axis for axis, one in enumerate(indices) if one is not None]
    for axis in places:
        labelling.pin(x.axes[axis])
    picked = broadcast(labelling, *(one for one in indices if one is not None))
    adjacent = places == list(range(places[0], places[-1] + 1))
    rest = [labels for axis, labels in enumerate(x.axes) if axis not in places]
    position = places[0] if adjacent else 0
    return (*rest[:position], *picked, *rest[position:])


@rule(aten.index_select.default)
def index_select(labelling: Labelling, x: Value, axis: int, picked: Value) -> Axes:
    """Does what `index` does, along one axis."""
    labelling.pin(x.axes[axis])
    return _replaced(x.axes, axis, *(picked.axes or (None,)))


@rule(aten.gather.default)
def gather(labelling: Labelling, x: Value, axis: int, picked: Value, *_: Any) -> Axes:
    """Selects along one axis, with a separate position for every entry of `picked`."""
    axis %= len(x.axes)
    labelling.pin(x.axes[axis])
    for other, (a, b) in enumerate(zip(x.axes, picked.axes, strict=True)):
        if other != axis and x.shape[other] == picked.shape[other]:
            labelling.tie(a, b)
        elif other != axis:
            labelling.pin(a)
            labelling.pin(b)
    return picked.axes


@rule(aten.roll.default)
def roll(labelling: Labelling, x: Value, shifts: Any, axes: Any = ()) -> Axes:
    """Shifts entries along axes in a circle; pins these axes."""
    turned = [axes] if isinstance(axes, int) else list(axes) or range(len(x.axes))
    result = x.axes
    for axis in turned:
        labelling.pin(result[axis])
        result = _replaced(result, axis, None)
    return result


@rule(aten.repeat.default)
def repeat(labelling: Labelling, x: Value, times: list[Any]) -> Axes:
    """Repeats a whole axis several times."""
    lead = len(times) - len(x.axes)
    result: list[Any] = [None] * lead
    for labels, size, count in zip(x.axes, x.shape, times[lead:], strict=True):
        if labels is None or count == 1:
            result.append(labels)
        elif size > 1 and isinstance(count, int):
            result.append(np.tile(labels, count))
        else:
            labelling.pin(labels)
            result.append(None)
    return tuple(result)


@rule(aten.repeat_interleave.self_int)
def repeat_interleave(labelling: Labelling, x: Value, times: Any, axis: int | None = None, *_: Any) -> Axes:
    """Repeats every index several times in a row."""
    if axis is None or not isinstance(times, int):
        raise Uncovered("repeats of a flattened tensor, or a free number of them")
    labels = x.axes[axis]
    if labels is not None and x.shape[axis] == 1:
        labelling.pin(labels)
        labels = None
    return _replaced(x.axes, axis, np.repeat(labels, times) if labels is not None else None)


@resize(aten.repeat_interleave.self_int)
def resize_repeat_interleave(resizing: Resizing, node: fx.Node) -> None:
    """Drops the argument with the number of output indices, which is an optional hint."""
    if node.kwargs.get("output_size") is not None:
        set_argument(node, "output_size", None)


@rule(aten.cumsum.default)
def running_sum(labelling: Labelling, x: Value, *_: Any) -> Axes:
    """Sums each index with those before it; a removed index of zeros adds nothing to the sums."""
    return x.axes


@rule(aten.cumprod.default, aten.logcumsumexp.default)
def running(labelling: Labelling, x: Value, axis: int, *_: Any) -> Axes:
    """Pins the axis: each index depends on those before it, and an index of zeros differs from an absent one."""
    labelling.pin(x.axes[axis])
    return _replaced(x.axes, axis, None)


@rule(aten.sort.default, aten.sort.stable)
def sort(labelling: Labelling, x: Value, *arguments: Any) -> list[Axes]:
    """Pins the sorted axis, since the places of its indices depend on all values."""
    (axis,) = arguments if len(arguments) == 1 else [a for a in arguments if type(a) is int]
    labelling.pin(x.axes[axis])
    return [_replaced(x.axes, axis, None)] * 2


@rule(aten.topk.default)
def topk(labelling: Labelling, x: Value, count: Any, axis: int = -1, *_: Any) -> list[Axes]:
    """Does what `sort` does, and keeps only the first places."""
    labelling.pin(x.axes[axis])
    return [_replaced(x.axes, axis, None)] * 2


@rule(aten.argsort.default)
def argsort(labelling: Labelling, x: Value, axis: int = -1, *_: Any) -> Axes:
    """Pins the sorted axis, as `sort` does."""
    labelling.pin(x.axes[axis])
    return _replaced(x.axes, axis, None)


@rule(aten.tril.default, aten.triu.default)
def triangle(labelling: Labelling, x: Value, *_: Any) -> Axes:
    """Pins rows and columns, since the triangle depends on their positions."""
    for labels in x.axes[-2:]:
        labelling.pin(labels)
    return (*x.axes[:-2], None, None)


@rule(aten.slice_scatter.default)
def slice_scatter(
    labelling: Labelling, x: Value, piece: Value, axis: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Axes:
    """Writes a piece over a run of indices."""
    axis %= len(x.axes)
    for other, (a, b) in enumerate(zip(x.axes, piece.axes, strict=True)):
        if other != axis:
            labelling.tie(a, b)
    labels = x.axes[axis]
    if labels is None or step != 1 or not all(isinstance(bound, int | None) for bound in (start, end)):
        labelling.pin(labels)
        labelling.pin(piece.axes[axis])
        return _replaced(x.axes, axis, None)
    labelling.tie(labels[start:end], piece.axes[axis])
    return x.axes


@rule(aten.select_scatter.default)
def select_scatter(labelling: Labelling, x: Value, piece: Value, axis: int, position: Any) -> Axes:
    """Overwrites one index of an axis, and pins the whole axis."""
    axis %= len(x.axes)
    labelling.pin(x.axes[axis])
    for a, b in zip(_replaced(x.axes, axis), piece.axes, strict=True):
        labelling.tie(a, b)
    return _replaced(x.axes, axis, None)
