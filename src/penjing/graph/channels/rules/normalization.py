"""Norms: scale and shift are tied to the channels. Norms that average over channels average over the remaining ones."""

from typing import Any

import torch
from torch import fx

from penjing.graph.channels.rules.elementwise import broadcast
from penjing.graph.channels.rules.table import Axes, Labelling, Resizing, Value, resize, rule, set_argument

aten = torch.ops.aten


@rule(aten.batch_norm.default, aten.instance_norm.default)
def per_channel(
    labelling: Labelling,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    *_: Any,
) -> Axes:
    """Ties all four vectors, which hold one entry per channel, to axis 1."""
    for vector, role in ((weight, "scale"), (bias, "shift"), (running_mean, "statistic"), (running_var, "statistic")):
        if vector is not None:
            labelling.tie(x.axes[1], vector.axes[0])
            labelling.role(vector, 0, role)
    return x.axes


@rule(aten.layer_norm.default, aten.rms_norm.default, tiled=True)
def over_last(
    labelling: Labelling, x: Value, shape: list[int], weight: Value | None = None, bias: Value | None = None, *_: Any
) -> Axes:
    """Ties scale and shift to the last axes, over which the op normalises; `normalized_shape` repeats the sizes."""
    for vector, role in ((weight, "scale"), (bias, "shift")):
        if not isinstance(vector, Value):
            continue
        for axis in range(len(shape)):
            labelling.tie(x.axes[len(x.axes) - len(shape) + axis], vector.axes[axis])
            labelling.role(vector, axis, role)
    return x.axes


@resize(aten.layer_norm.default, aten.rms_norm.default)
def resize_over_last(resizing: Resizing, node: fx.Node) -> None:
    """Writes the new sizes of the normalised axes."""
    shape = list(node.args[1])
    for axis in range(len(shape)):
        count = resizing.count(node, axis - len(shape))
        shape[axis] = shape[axis] if count is None else count
    node.update_arg(1, shape)


@rule(aten.group_norm.default)
def group_norm(labelling: Labelling, x: Value, groups: int, weight: Value | None, bias: Value | None, *_: Any) -> Axes:
    """Ties whole groups where groups are small, which keeps the others' statistics; else ties one index of each group."""
    for vector, role in ((weight, "scale"), (bias, "shift")):
        if vector is not None:
            labelling.tie(x.axes[1], vector.axes[0])
            labelling.role(vector, 0, role)
    labels = x.axes[1]
    if labels is not None:
        table = labels.reshape(groups, -1)
        if table.shape[1] > groups:
            labelling.tie(table[:1].repeat(groups - 1, 0).ravel(), table[1:].ravel())
        else:
            labelling.tie(table[:, :1].repeat(table.shape[1] - 1, 1).ravel(), table[:, 1:].ravel())
    return x.axes


@resize(aten.group_norm.default)
def resize_group_norm(resizing: Resizing, node: fx.Node) -> None:
    """Writes the new number of groups where units are whole groups; see the rule."""
    kept = resizing.kept(node, 1)
    groups = node.args[1]
    if kept is not None and isinstance(groups, int) and kept.size // groups <= groups:
        set_argument(node, "num_groups", int(kept.reshape(groups, -1)[:, 0].sum()))


@rule(aten.softmax.int, aten.log_softmax.int, aten._softmax.default, aten._log_softmax.default, tiled=True)
def along_axis(labelling: Labelling, x: Value, axis: int, *_: Any) -> Axes:
    """Keeps the shape; the indices along one axis share a sum of one."""
    labelling.shares(x.axes[axis])
    return x.axes


@rule(aten._weight_norm.default)
def weight_norm(labelling: Labelling, direction: Value, length: Value, axis: int = 0) -> Axes:
    """Ties a weight's direction to its length, which has one entry for each index of one axis."""
    return broadcast(labelling, direction, length)
