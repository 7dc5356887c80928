"""Convolutions: the weight's input axis is tied to the incoming channels; its output axis gives the outgoing ones' labels."""

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
    pinned,
    resize,
    rule,
    set_argument,
)
from penjing.graph.ops import node_arguments

aten = torch.ops.aten

_PLAIN = (
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
)
_TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)


@rule(*_PLAIN, tiled=True)
def convolution(
    labelling: Labelling,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int | fx.Node,
) -> Axes:
    """Weight `(out_channels, in_channels / groups, *kernel)`."""
    channel = len(x.axes) - len(weight.axes) + 1
    _pin_kernel(labelling, weight)
    if isinstance(groups, int):
        out = _tie_groups(labelling, x.axes[channel], weight, 0, 1, groups)
    else:
        per_group = weight.shape[0] // (x.shape[channel] // weight.shape[1])
        _tie_each(labelling, x.axes[channel], weight.axes[1], weight.shape[1])
        out = _repeating(labelling, weight.axes[0], per_group)
    _tie_bias(labelling, out, bias)
    return (*x.axes[:channel], out, *_spatial(labelling, x.axes[channel + 1 :], weight, stride, padding))


@rule(*_TRANSPOSED, tiled=True)
def transposed(
    labelling: Labelling,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int | fx.Node,
    dilation: Any,
) -> Axes:
    """Weight `(in_channels, out_channels / groups, *kernel)`."""
    channel = len(x.axes) - len(weight.axes) + 1
    _pin_kernel(labelling, weight)
    labelling.role(weight, 0, "in")
    labelling.role(weight, 1, "out")
    incoming, rows, out = x.axes[channel], weight.axes[0], weight.axes[1]
    labelling.tie(incoming, rows)
    if not isinstance(groups, int):
        per_group = weight.shape[0] // (labelling.output()[channel] // weight.shape[1])
        if _repeating(labelling, rows, per_group) is None:
            labelling.pin(out)
            out = None
    elif whole_groups(groups, weight.shape[0] // groups, weight.shape[1]):
        labelling.pin(out)
        out = np.repeat(_tie_within(labelling, rows, groups), weight.shape[1]) if rows is not None else None
    elif groups > 1:
        _tie_across(labelling, rows, groups)
        out = np.tile(out, groups) if out is not None else None
    _tie_bias(labelling, out, bias)
    return (*x.axes[:channel], out, *pinned(labelling, x.axes[channel + 1 :]))


def _spatial(labelling: Labelling, axes: Axes, weight: Value, stride: Any, padding: Any) -> Axes:
    """Pins the axes over which a window slides; an axis on which the window covers a single place acts as a batch axis."""

    def at(sizes: Any, i: int) -> Any:
        return 0 if isinstance(sizes, str) else sizes[i % len(sizes)]  # "same" and "valid" pad a window of one by none

    result: list[Axis] = []
    for i, (axis, window) in enumerate(zip(axes, weight.shape[2:], strict=True)):
        passes = window == 1 and at(stride, i) in (0, 1) and at(padding, i) == 0
        result += [axis] if passes else pinned(labelling, (axis,))
    return tuple(result)


def _pin_kernel(labelling: Labelling, weight: Value) -> None:
    pinned(labelling, weight.axes[2:])


def _tie_groups(labelling: Labelling, incoming: Axis, weight: Value, out_axis: int, in_axis: int, groups: int) -> Axis:
    """Ties a convolution's weight to its input channels and returns the labels of its output channels."""
    out, inner = weight.axes[out_axis], weight.axes[in_axis]
    labelling.role(weight, out_axis, "out")
    labelling.role(weight, in_axis, "in")
    if groups == 1:
        labelling.tie(incoming, inner)
    elif whole_groups(groups, weight.shape[in_axis], weight.shape[out_axis] // groups):
        labelling.pin(inner)
        first, second = _tie_within(labelling, incoming, groups), _tie_within(labelling, out, groups)
        labelling.tie(first, second)
    else:  # the same index of every group is removed together, so that groups stay equal
        labelling.tie(incoming, np.tile(inner, groups) if inner is not None else None)
        _tie_across(labelling, out, groups)
    return out


def whole_groups(groups: int, inputs: int, outputs: int) -> bool:
    """Tells whether units are whole groups, as in depthwise convolutions, or the same index of each group: the finer one."""
    return groups > 1 and (inputs == 1 or min(inputs, outputs) < groups)


def _tie_within(labelling: Labelling, axis: Axis, groups: int) -> Axis:
    """Ties all indices within each group; returns one label per group."""
    if axis is None:
        return None
    rows = axis.reshape(groups, -1)
    labelling.tie(np.repeat(rows[:, 0], rows.shape[1]), axis)
    return rows[:, 0]


def _tie_across(labelling: Labelling, axis: Axis, groups: int) -> None:
    """Ties the same position of all groups."""
    if axis is not None:
        rows = axis.reshape(groups, -1)
        labelling.tie(np.tile(rows[0], groups - 1), rows[1:].ravel())


def _repeating(labelling: Labelling, axis: Axis, size: int) -> Axis:
    """Returns the labels of an axis that repeat in each group, with one group per sample; pins other axes."""
    if axis is None or axis.size == size:
        return axis
    labelling.pin(axis)
    return None


def _tie_each(labelling: Labelling, axis: Axis, inner: Axis, size: int) -> None:
    """Ties an axis with one group per sample to the input of each group; every sample has the same labels."""
    labelling.tie(_repeating(labelling, axis, size), inner)


def _tie_bias(labelling: Labelling, out: Axis, bias: Value | None) -> None:
    if bias is not None:
        labelling.tie(out, bias.axes[0])
        labelling.role(bias, 0, "shift")


@resize(*_PLAIN, *_TRANSPOSED)
def resize_convolution(resizing: Resizing, node: fx.Node) -> None:
    """Writes the new number of groups where whole groups were removed; otherwise the number stays."""
    x, weight = node.args[:2]
    out, inner = weight.meta["val"].shape[:2]  # type: ignore[union-attr]
    position = [argument.name for argument in node.target._schema.arguments].index("groups")  # type: ignore[union-attr]
    groups = node_arguments(node)[position]
    if not isinstance(groups, int):  # one group per sample, with kernels of the same size
        return
    if node.target in _TRANSPOSED:
        inputs, outputs = out // groups, inner
    else:
        inputs, outputs = inner, out // groups
    channels = resizing.count(x, len(x.meta["val"].shape) - len(weight.meta["val"].shape) + 1)  # type: ignore
    if whole_groups(groups, inputs, outputs) and channels is not None:
        set_argument(node, "groups", channels // inputs)
