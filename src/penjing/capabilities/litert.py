"""What LiteRT can do on the CPU with XNNPACK's kernels.

Its own profile shows which ops it executes in integers (version 2.3.0).
"""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from penjing.capabilities._records import Capabilities, Condition, Numbers, Placement, Zeros
from penjing.graph.clips import CLIPS
from penjing.graph.ops import node_arguments

aten = torch.ops.aten


def _always(node: fx.Node) -> bool:
    return True


def _rank(node: fx.Node) -> int:
    return int(node.args[0].meta["val"].dim())  # type: ignore[union-attr]


def _images(node: fx.Node) -> bool:
    return _rank(node) == 4


def _flat_or_square(node: fx.Node) -> bool:
    """Tells whether a convolution runs over one axis or two."""
    return _rank(node) <= 4


def _two_tensors(node: fx.Node) -> bool:
    return all(isinstance(operand, fx.Node) for operand in node.args[:2]) and bool(node.kwargs.get("alpha", 1) == 1)


def _divides(node: fx.Node) -> bool:
    """Tells whether all windows of an adaptive pool are alike, so that it is a mean or an ordinary pool."""
    x, out = node.args[0].meta["val"], node.args[1]  # type: ignore[union-attr]
    if x.dim() != 4 or not isinstance(out, list | tuple):
        return False
    pairs = [(size, wanted) for size, wanted in zip(x.shape[2:], out, strict=True) if wanted is not None]
    return all(isinstance(size, int) and size % wanted == 0 for size, wanted in pairs) or list(out) == [1, 1]


def _over_space(node: fx.Node) -> bool:
    """Tells whether a mean runs over height and width."""
    axes, dtype = node_arguments(node)[1], node_arguments(node)[3]
    return _rank(node) == 4 and axes is not None and dtype is None and sorted(axis % 4 for axis in axes) == [2, 3]


def _average(node: fx.Node) -> bool:
    """Tells whether the windows of a pool lie within the image."""
    arguments = node_arguments(node)
    padding = arguments[3] if isinstance(arguments[3], list | tuple) else [arguments[3]]
    return _rank(node) == 4 and not any(padding) and not arguments[4] and arguments[6] is None


def _pool(node: fx.Node) -> bool:
    """Tells whether the entries of a max pool's windows lie side by side."""
    dilation: Any = node_arguments(node)[4]
    steps = dilation if isinstance(dilation, list | tuple) else [dilation]
    return _rank(node) == 4 and all(step == 1 for step in steps)


def _zero_pad(node: fx.Node) -> bool:
    """Tells whether a pad adds zeros, which every grid holds; only such a pad passes integers on."""
    arguments = node_arguments(node)
    if min(arguments[1], default=0) < 0:
        return False
    if node.target is aten.constant_pad_nd.default:
        return arguments[2] in (None, 0)
    return arguments[2] == "constant" and arguments[3] in (None, 0)


_EIGHT_BITS = {"intN": 8, "power_of_two": 8, "ternary": 0, "binary": 0}

# Transposed convolutions are missing on purpose: they are written with floating-point weights.
_LAYERS: Mapping[Any, Condition] = {
    aten.conv1d.default: _flat_or_square,
    aten.conv2d.default: _flat_or_square,
    aten.conv1d.padding: _flat_or_square,
    aten.conv2d.padding: _flat_or_square,
    aten.linear.default: _always,
}

_PLACEMENT = Placement(
    layers=_LAYERS,
    float_output=frozenset(),  # a layer computes in integers only where its output is rounded
    weights_alone=_LAYERS,
    integer={
        aten.add.Tensor: _two_tensors,
        aten.sub.Tensor: _two_tensors,
        aten.mul.Tensor: _two_tensors,
        aten.cat.default: _always,
        aten.concat.default: _always,
        aten.concatenate.default: _always,
        aten.avg_pool2d.default: _average,
        aten.adaptive_avg_pool2d.default: _divides,
        aten.mean.dim: _over_space,
        aten.sigmoid.default: _always,
        aten.tanh.default: _always,
        aten.hardsigmoid.default: _always,
        aten.hardswish.default: _always,
        aten.leaky_relu.default: _always,
    },
    same={
        aten.max_pool2d.default: _pool,
        aten.reshape.default: _always,
        aten.flatten.using_ints: _always,
        aten.unflatten.int: _always,
        aten.transpose.int: _always,
        aten.permute.default: _always,
        aten.squeeze.dim: _always,
        aten.squeeze.dims: _always,
        aten.unsqueeze.default: _always,
        aten.contiguous.default: _always,
        aten.clone.default: _always,
        aten.dropout.default: _always,
        aten.feature_dropout.default: _always,
        aten.slice.Tensor: _always,
        aten.chunk.default: _always,
        aten.split.Tensor: _always,
        aten.split.sizes: _always,
        aten.split_with_sizes.default: _always,
        aten.pad.default: _zero_pad,
        aten.constant_pad_nd.default: _zero_pad,
        aten.upsample_nearest2d.vec: _images,
        operator.getitem: _always,
    },
    clips=CLIPS,
    bounded={
        aten.sigmoid.default: (0.0, 1.0),
        aten.tanh.default: (-1.0, 1.0),
        aten.hardsigmoid.default: (0.0, 1.0),
        aten.softmax.int: (0.0, 1.0),
    },
    gates=frozenset({aten.silu.default}),
)

LITERT = Capabilities(
    name="litert",
    placement=_PLACEMENT,
    numbers=Numbers(
        preferred="uint8",  # written as int8 with the same steps and another zero point
        activations={"intN": 8, "uintN": 8},
        # Weights with a zero point of their own are missing: the kernels take none.
        weights=dict.fromkeys(("tensor", "channel"), _EIGHT_BITS),
        weights_alone=dict.fromkeys(("tensor", "channel"), _EIGHT_BITS),
        stored=(8, 32),
        wider=("int8",),
    ),
    channel_multiples=(16, 8),
    zeros=Zeros(
        skipped=frozenset(),
        left_out=frozenset(),
        why="LiteRT multiplies by every weight, zero or not, and a .tflite file stores every weight.",
    ),
)
