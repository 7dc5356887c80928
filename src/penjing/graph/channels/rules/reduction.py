"""Sums, means and other reductions: a reduced axis is dropped or keeps a single index."""

from typing import Any

import torch

from penjing.graph.channels.rules.table import Axes, Labelling, Value, rule

aten = torch.ops.aten


def _without(x: Value, axes: Any, keepdim: bool) -> Axes:
    rank = len(x.axes)
    listed = range(rank) if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
    gone = {axis % rank for axis in listed}
    return tuple(None if i in gone else axis for i, axis in enumerate(x.axes) if keepdim or i not in gone)


@rule(aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default, tiled=True)
def over_axes(labelling: Labelling, x: Value, axes: Any = None, keepdim: bool = False, *_: Any) -> Axes:
    """Reduces over a list of axes (none listed: over all)."""
    return _without(x, axes, keepdim)


@rule(aten.logsumexp.default, tiled=True)
def log_of_sum(labelling: Labelling, x: Value, axes: Any, keepdim: bool = False) -> Axes:
    """The logarithm of a softmax's denominator."""
    for axis in [axes] if isinstance(axes, int) else axes:
        labelling.shares(x.axes[axis])
    return _without(x, axes, keepdim)


@rule(aten.mean.default, aten.sum.default, aten.max.default, aten.min.default)
def over_all(labelling: Labelling, x: Value, *_: Any) -> Axes:
    """Reduces to one number."""
    return ()


@rule(aten.var.dim, aten.std.dim, tiled=True)
def spread(labelling: Labelling, x: Value, axes: Any, unbiased: bool = True, keepdim: bool = False) -> Axes:
    """Variance and standard deviation."""
    return _without(x, axes, keepdim)


@rule(aten.var.correction, aten.std.correction)
def corrected_spread(labelling: Labelling, x: Value, axes: Any, correction: Any = None, keepdim: bool = False) -> Axes:
    """Variance and standard deviation with a correction of the count."""
    return _without(x, axes, keepdim)


@rule(aten.var_mean.correction, aten.std_mean.correction)
def spread_and_mean(
    labelling: Labelling, x: Value, axes: Any = None, correction: Any = None, keepdim: bool = False
) -> list[Axes]:
    """Variance or standard deviation, and the mean."""
    return [_without(x, axes, keepdim)] * 2


@rule(aten.linalg_vector_norm.default, tiled=True)
def vector_norm(
    labelling: Labelling, x: Value, order: Any = 2, axes: Any = None, keepdim: bool = False, *_: Any
) -> Axes:
    """A p-norm over axes."""
    return _without(x, axes, keepdim)


@rule(aten.norm.ScalarOpt_dim)
def norm(labelling: Labelling, x: Value, order: Any, axes: Any, keepdim: bool = False) -> Axes:
    """A p-norm over axes."""
    return _without(x, axes, keepdim)


@rule(aten.max.dim, aten.min.dim)
def extremum(labelling: Labelling, x: Value, axis: int, keepdim: bool = False) -> list[Axes]:
    """Extreme values and their positions; pins the axis, since removing channels would change the meaning of positions."""
    labelling.pin(x.axes[axis])
    axes = _without(x, axis, keepdim)
    return [axes, axes]


@rule(aten.argmax.default, aten.argmin.default)
def position(labelling: Labelling, x: Value, axis: int | None = None, keepdim: bool = False) -> Axes:
    """Positions of extreme values; pins the axis, since removing channels would change the positions."""
    for labels in x.axes if axis is None else [x.axes[axis]]:
        labelling.pin(labels)
    return _without(x, axis, keepdim)
