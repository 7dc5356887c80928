"""Views: ops that reorder, add, drop, merge and split axes and leave all values as they are."""

import math
import operator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import fx

from penjing.graph.channels.rules.table import FREE, Axes, Axis, Labelling, Resizing, Value, resize, rule, set_argument

aten = torch.ops.aten


@rule(aten.permute.default, tiled=True)
def permute(labelling: Labelling, x: Value, order: list[int]) -> Axes:
    """Reorders the axes."""
    return tuple(x.axes[axis] for axis in order)


@rule(aten.transpose.int, aten.swapaxes.default, aten.swapdims.default, tiled=True)
def transpose(labelling: Labelling, x: Value, a: int, b: int) -> Axes:
    """Swaps two axes."""
    axes = list(x.axes)
    axes[a], axes[b] = axes[b], axes[a]
    return tuple(axes)


@rule(aten.t.default, tiled=True)
def matrix_transpose(labelling: Labelling, x: Value) -> Axes:
    """Swaps the two axes of a matrix."""
    return tuple(reversed(x.axes))


@rule(aten.unsqueeze.default, tiled=True)
def unsqueeze(labelling: Labelling, x: Value, axis: int) -> Axes:
    """Adds an axis of size one."""
    axis %= len(x.axes) + 1
    return (*x.axes[:axis], None, *x.axes[axis:])


@rule(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, tiled=True)
def squeeze(labelling: Labelling, x: Value, axes: Any = None) -> Axes:
    """Drops axes of size one; pins the single index of such an axis if it has a label."""
    listed = range(len(x.axes)) if axes is None else [axes] if isinstance(axes, int) else axes
    gone = {axis % len(x.axes) for axis in listed if x.shape[axis] == 1}
    for axis in gone:
        labelling.pin(x.axes[axis])
    return tuple(labels for axis, labels in enumerate(x.axes) if axis not in gone)


@resize(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default)
def resize_squeeze(resizing: Resizing, node: fx.Node) -> None:
    """Lists the axes to drop, so that a longer axis that shrank to one index isn't dropped, too."""
    x: Any = node.args[0]
    shape = x.meta["val"].shape
    if any(size != 1 and resizing.count(x, axis) == 1 for axis, size in enumerate(shape)):
        listed = node.args[1] if len(node.args) > 1 else range(len(shape))
        axes = [axis % len(shape) for axis in ([listed] if isinstance(listed, int) else listed)]  # type: ignore[union-attr]
        node.target, node.args = aten.squeeze.dims, (x, [axis for axis in axes if shape[axis] == 1])


@rule(aten.flip.default)
def flip(labelling: Labelling, x: Value, axes: list[int]) -> Axes:
    """Reverses axes."""
    gone = {axis % len(x.axes) for axis in axes}
    return tuple(a[::-1] if i in gone and a is not None else a for i, a in enumerate(x.axes))


@rule(aten.expand.default, tiled=True)
def expand(labelling: Labelling, x: Value, size: Any, *_: Any) -> Axes:
    """Expands axes of size one; their single index must stay, but its copies may be removed."""
    shape = labelling.output()
    lead = len(shape) - len(x.axes)
    result: list[Axis] = []
    for axis, size in enumerate(shape):
        if axis >= lead and x.shape[axis - lead] == size:
            result.append(x.axes[axis - lead])
            continue
        if axis >= lead:
            labelling.pin(x.axes[axis - lead])
        result.append(labelling.axis(size))
    return tuple(result)


@rule(aten.movedim.int, aten.movedim.intlist, tiled=True)
def movedim(labelling: Labelling, x: Value, sources: Any, targets: Any) -> Axes:
    """Moves some axes to other places; the others keep their order."""
    rank = len(x.axes)
    pairs = zip(*([a] if isinstance(a, int) else a for a in (sources, targets)), strict=True)
    places = {target % rank: source % rank for source, target in pairs}
    rest = iter(axis for axis in range(rank) if axis not in places.values())
    return tuple(x.axes[places[i] if i in places else next(rest)] for i in range(rank))


@rule(
    aten.reshape.default,
    aten.view.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    tiled=True,
)
def reshape(labelling: Labelling, x: Value, *_: Any) -> Axes:
    """Splits and merges axes; in each run of related axes, one axis carries the channels and the others are pinned."""
    shape = labelling.output()
    result: list[Axis] = []
    for before, after in _runs(x.shape, shape):
        wide = [(x.axes[i], x.shape[i]) for i in before]
        factors = _factors([size for _, size in wide], [shape[i] for i in after])
        if factors is None:
            result += _split(labelling, _merge(labelling, wide), [shape[i] for i in after])
            continue
        pieces = iter(
            (labels, size)
            for (axis, _), sizes in zip(wide, factors[0], strict=True)
            for labels, size in zip(_split(labelling, axis, sizes), sizes, strict=True)
        )
        result += [_merge(labelling, [next(pieces) for _ in sizes]) for sizes in factors[1]]
    return tuple(result)


@rule(aten.reshape_as.default, aten.view_as.default, tiled=True)
def reshape_as(labelling: Labelling, x: Value, other: Value) -> Axes:
    """Does what `reshape` does, to the shape of `other`; both tensors therefore shrink alike."""
    axes = reshape(labelling, x)
    for a, b in zip(axes, other.axes, strict=True):
        labelling.tie(a, b)
    return axes


def _factors(before: list[int], after: list[int]) -> tuple[list[list[int]], list[list[int]]] | None:
    """Splits the axes of both shapes into the same factors: (batch, heads · size) and (batch · heads, size) have three.

    Returns the factors of each axis of both shapes, or None if there are no common factors.
    """
    inner = [{math.prod(sizes[i:]) for i in range(len(sizes) + 1)} for sizes in (before, after)]
    cuts = sorted(inner[0] | inner[1])
    if any(larger % smaller for smaller, larger in pairwise(cuts)):
        return None
    steps = [larger // smaller for smaller, larger in pairwise(cuts)][::-1]

    def deal(sizes: list[int]) -> list[list[int]]:
        left = iter(steps)
        dealt = []
        for size in sizes:
            factors: list[int] = []
            while math.prod(factors) != size:
                factors.append(next(left))
            dealt.append(factors or [1])
        return dealt

    return (deal(before), deal(after)) if 1 not in before + after else None


def _runs(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Splits two shapes into the shortest runs of axes with equal products."""
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i] if i < len(before) else [], [j] if j < len(after) else []
        i, j = i + len(left), j + len(right)
        a, b = (math.prod(before[k] for k in left), math.prod(after[k] for k in right))
        while a != b:
            if (a < b or not right) and i < len(before):
                left.append(i)
                a *= before[i]
                i += 1
            elif j < len(after):
                right.append(j)
                b *= after[j]
                j += 1
            else:
                raise ValueError(f"can't reshape {before} to {after}")
        runs.append((left, right))
    return runs


def _merge(labelling: Labelling, axes: list[tuple[Axis, int]]) -> Axis:
    """Returns the labels of several axes merged to one: those of the longest axis that a parameter has; pins the others.

    The labels of an axis behind a dynamic one repeat along it: the merged axis is tiled. An axis before it is pinned.
    """
    axes = [part for labels, size in axes for part in _untiled(labels, size) if part[1] > 1 or part[0] is not None]
    free = max((i for i, (_, size) in enumerate(axes) if size >= FREE), default=-1)
    for labels, _ in axes[: free + 1]:
        labelling.pin(labels)
    axes = axes[free + 1 :]
    labelled = [i for i, (labels, _) in enumerate(axes) if labels is not None and labels.any()]
    if not labelled:
        return None
    if labelling.exploring and len(labelled) > 1:
        for i in labelled:
            labelling.pin(axes[i][0] if axes[i][1] == 1 else None)
        labelling.tried({})
        return labelling.fresh(math.prod(size for _, size in axes))
    carrier = max(labelled, key=lambda i: (len(labelled) > 1 and labelling.owned(axes[i][0]), axes[i][1]))
    for i in labelled:
        if i != carrier:
            labelling.pin(axes[i][0])
    outer = math.prod(size for _, size in axes[:carrier])
    inner = math.prod(size for _, size in axes[carrier + 1 :])
    labels = axes[carrier][0]
    return np.tile(np.repeat(labels, inner), outer) if labels is not None else None


def _untiled(labels: Axis, size: int) -> list[tuple[Axis, int]]:
    """Returns a tiled axis as its two factors, the dynamic axis and the labelled one; any other axis as it is."""
    if labels is None or labels.size == size:
        return [(labels, size)]
    return [(None, size // labels.size), (labels, labels.size)]


def _split(labelling: Labelling, labels: Axis, sizes: list[int]) -> list[Axis]:
    """Returns the labels of an axis that is split into several axes, one of which carries the labels."""
    result: list[Axis] = [None] * len(sizes)
    if labels is None or len(sizes) == 1:
        return [labels] if sizes and labels is not None else result
    free = max((axis for axis, size in enumerate(sizes) if size >= FREE), default=-1)
    finite = dict(enumerate(sizes[free + 1 :], free + 1))
    inner = math.prod(finite.values())
    if free >= 0 and labels.size > inner and labels.size % inner == 0 and sizes[free] % (labels.size // inner) == 0:
        finite = {free: labels.size // inner, **finite}  # the dynamic axis stays tiled
    elif free >= 0 and inner % labels.size == 0:
        labels = np.tile(labels, inner // labels.size)
    elif free >= 0:
        labelling.pin(labels)
        return result
    tables = {}
    for axis, size in finite.items():
        if size > 1:
            tables[axis] = labels.reshape(math.prod(n for other, n in finite.items() if other < axis), size, -1)
    if not tables:
        labelling.pin(labels)
        return result

    def constant(table: np.ndarray) -> bool:
        return bool((table == table[:1, :, :1]).all())

    # An axis that can carry the labels without new ties wins over a longer one: it undoes an earlier merge.
    untied = {axis: finite[axis] for axis, table in tables.items() if constant(table)}
    if labelling.exploring and not untied and len(tables) > 1:
        candidates = {axis: labelling.fresh(finite[axis]) for axis in tables}
        labelling.tried(candidates)
        return [candidates.get(axis) for axis in range(len(sizes))]
    carrier = (
        max(untied, key=finite.__getitem__) if untied else labelling.choose({axis: finite[axis] for axis in tables})
    )
    table = tables[carrier]
    if not constant(table):
        labelling.tie(np.broadcast_to(table[:1, :, :1], table.shape).ravel(), table.ravel())
    result[carrier] = table[0, :, 0]
    return result


def resized(resizing: Resizing, node: fx.Node, sizes: list[Any], offset: int = 0) -> list[Any]:
    """Returns constant sizes with the new sizes of axes that changed; −1 and dynamic sizes stay."""
    new = []
    for position, size in enumerate(sizes):
        count = resizing.count(node, offset + position) if isinstance(size, int) and size != -1 else None
        new.append(size if count is None else count)
    return new


@resize(aten.reshape.default, aten.view.default)
def resize_sizes(resizing: Resizing, node: fx.Node) -> None:
    """Rewrites the sizes in the call; the size of a tiled axis follows from the others, or from its old one."""
    sizes = resized(resizing, node, list(node.args[1]))  # type: ignore[arg-type]
    for axis, size in enumerate(sizes):
        before, now = resizing.period(node, axis) or (1, 1)
        if before != now and not isinstance(size, int):
            sizes[axis] = -1 if -1 not in sizes else _rescaled(node, size, before, now)
    node.update_arg(1, sizes)


def _rescaled(node: fx.Node, size: Any, before: int, now: int) -> fx.Node:
    """Returns a node that computes a dynamic size times `now` / `before`."""
    with node.graph.inserting_before(node):
        product = node.graph.call_function(operator.mul, (size, now))
        quotient = node.graph.call_function(operator.floordiv, (product, before))
    product.meta["val"] = size.meta["val"] * now
    quotient.meta["val"] = product.meta["val"] // before
    return quotient


@resize(aten.expand.default)
def resize_expand(resizing: Resizing, node: fx.Node) -> None:
    """Rewrites the sizes in the call; a tiled axis keeps its size."""
    sizes = resized(resizing, node, list(node.args[1]))  # type: ignore[arg-type]
    node.update_arg(1, [-1 if resizing.period(node, axis) else size for axis, size in enumerate(sizes)])


@resize(aten.unflatten.int)
def resize_unflatten(resizing: Resizing, node: fx.Node) -> None:
    """Rewrites the sizes into which the axis is split."""
    axis = int(node.args[1]) % len(node.args[0].meta["val"].shape)  # type: ignore[union-attr, arg-type]
    set_argument(node, "sizes", resized(resizing, node, list(node.args[2]), axis))
