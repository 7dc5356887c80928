"""Convolutions: the weight's input axis is tied to the channels that come in, its output axis names those that go out."""

from typing import Any

import numpy as np
import torch
from torch import fx

from penjing.graph.normalize import node_arguments
from penjing.graph.rules.table import Axes, Axis, Labelling, Resizing, Value, resize, rule, set_argument

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


@rule(*_PLAIN)
def convolution(
    labelling: Labelling,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Axes:
    """Weight `(out_channels, in_channels / groups, *kernel)`."""
    channel = len(x.axes) - len(weight.axes) + 1
    _pin_kernel(labelling, weight)
    out = _tie_groups(labelling, x.axes[channel], weight, 0, 1, groups)
    _tie_bias(labelling, out, bias)
    return (*x.axes[:channel], out, *[None] * (len(weight.axes) - 2))


@rule(*_TRANSPOSED)
def transposed(
    labelling: Labelling,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Axes:
    """Weight `(in_channels, out_channels / groups, *kernel)`."""
    channel = len(x.axes) - len(weight.axes) + 1
    _pin_kernel(labelling, weight)
    labelling.role(weight, 0, "in")
    labelling.role(weight, 1, "out")
    incoming, rows = x.axes[channel], weight.axes[0]
    labelling.tie(incoming, rows)
    out = weight.axes[1]
    if groups > 1:
        _tie_across(labelling, rows, groups)
        out = np.tile(out, groups) if out is not None else None
    _tie_bias(labelling, out, bias)
    return (*x.axes[:channel], out, *[None] * (len(weight.axes) - 2))


def _pin_kernel(labelling: Labelling, weight: Value) -> None:
    for axis in weight.axes[2:]:
        labelling.pin(axis)


def _tie_groups(labelling: Labelling, incoming: Axis, weight: Value, out_axis: int, in_axis: int, groups: int) -> Axis:
    """Ties a convolution's weight to what comes in and returns what goes out."""
    out, inner = weight.axes[out_axis], weight.axes[in_axis]
    labelling.role(weight, out_axis, "out")
    labelling.role(weight, in_axis, "in")
    if groups == 1:
        labelling.tie(incoming, inner)
    elif weight.shape[in_axis] == 1:  # depthwise: channel i feeds the multiplier's outputs i·m … i·m + m − 1
        labelling.pin(inner)
        labelling.tie(np.repeat(incoming, weight.shape[out_axis] // groups) if incoming is not None else None, out)
    else:  # the same index of every group goes together, so that the groups stay equal
        labelling.tie(incoming, np.tile(inner, groups) if inner is not None else None)
        _tie_across(labelling, out, groups)
    return out


def _tie_across(labelling: Labelling, axis: Axis, groups: int) -> None:
    """Ties the same position of every group to one another."""
    if axis is not None:
        rows = axis.reshape(groups, -1)
        labelling.tie(np.tile(rows[0], groups - 1), rows[1:].ravel())


def _tie_bias(labelling: Labelling, out: Axis, bias: Value | None) -> None:
    if bias is not None:
        labelling.tie(out, bias.axes[0])
        labelling.role(bias, 0, "shift")


@resize(*_PLAIN)
def resize_convolution(resizing: Resizing, node: fx.Node) -> None:
    """A depthwise convolution has as many groups as channels come in; other grouped ones keep their number."""
    x, weight, *_, groups = node_arguments(node)
    channels = resizing.count(x, len(x.meta["val"].shape) - len(weight.meta["val"].shape) + 1)
    if groups > 1 and weight.meta["val"].shape[1] == 1 and channels is not None:
        set_argument(node, "groups", channels)
