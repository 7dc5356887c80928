"""What ONNX Runtime's CPU provider executes in integers, as measured on its optimised models (version 1.32)."""

import operator
from typing import Any

import torch
from torch import fx

from penjing.graph.normalize import node_arguments
from penjing.graph.ops import CONVOLUTIONS
from penjing.quantize import _rewrites
from penjing.quantize._placement import EVERYTHING, Interval, Placement

aten = torch.ops.aten


def _always(node: fx.Node) -> bool:
    return True


def _two_tensors(node: fx.Node) -> bool:
    return all(isinstance(operand, fx.Node) for operand in node.args[:2]) and bool(node.kwargs.get("alpha", 1) == 1)


def _images(node: fx.Node) -> bool:
    return bool(node.args[0].meta["val"].dim() == 4)  # type: ignore[union-attr]


def _divides(node: fx.Node) -> bool:
    """An adaptive pool whose windows are all alike is an ordinary one."""
    x, out = node.args[0].meta["val"], node.args[1]  # type: ignore[union-attr]
    if x.dim() != 4 or not isinstance(out, list | tuple):
        return False
    pairs = [(size, wanted) for size, wanted in zip(x.shape[2:], out, strict=True) if wanted is not None]
    return all(isinstance(size, int) and size % wanted == 0 for size, wanted in pairs) or list(out) == [1, 1]


def _over_space(node: fx.Node) -> bool:
    """A mean over height and width is a global pool."""
    x, axes = node.args[0].meta["val"], node_arguments(node)[1]  # type: ignore[union-attr]
    return x.dim() == 4 and axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]


def _zero_pad(node: fx.Node) -> bool:
    """Only a pad with zeros passes integers on: no other constant needs to be on the grid."""
    arguments = node_arguments(node)
    if node.target is aten.constant_pad_nd.default:
        return arguments[2] in (None, 0)
    return arguments[2] == "constant" and arguments[3] in (None, 0)


def _clamp(node: fx.Node) -> Interval | None:
    low, high = node_arguments(node)[1:3]
    return _bounds(low, high)


def _clamp_min(node: fx.Node) -> Interval | None:
    return _bounds(node.args[1], None)


def _clamp_max(node: fx.Node) -> Interval | None:
    return _bounds(None, node.args[1])


def _bounds(low: Any, high: Any) -> Interval | None:
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        return None
    return EVERYTHING[0] if low is None else float(low), EVERYTHING[1] if high is None else float(high)


# Transposed convolutions are missing on purpose: always computed in floating point, their weights dequantised at each run.
ONNXRUNTIME = Placement(
    name="onnxruntime",
    activations="uint8",
    layers={
        **dict.fromkeys(CONVOLUTIONS, _always),
        aten.linear.default: _always,
    },
    float_output=frozenset({aten.linear.default}),
    integer={
        aten.add.Tensor: _two_tensors,
        aten.mul.Tensor: _two_tensors,
        aten.cat.default: _always,
        aten.concat.default: _always,
        aten.concatenate.default: _always,
        aten.avg_pool2d.default: _images,
        aten.adaptive_avg_pool2d.default: _divides,
        aten.mean.dim: _over_space,
        aten.sigmoid.default: _always,
        aten.hardsigmoid.default: _always,
        aten.leaky_relu.default: _always,
        aten.matmul.default: _two_tensors,
        aten.bmm.default: _two_tensors,
    },
    same={
        aten.max_pool2d.default: _images,
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
    clips={
        aten.relu.default: lambda node: (0.0, EVERYTHING[1]),
        aten.relu6.default: lambda node: (0.0, 6.0),
        aten.hardtanh.default: _clamp,
        aten.clamp.default: _clamp,
        aten.clamp_min.default: _clamp_min,
        aten.clamp_max.default: _clamp_max,
    },
    bounded={
        aten.sigmoid.default: (0.0, 1.0),
        aten.hardsigmoid.default: (0.0, 1.0),
        aten.softmax.int: (0.0, 1.0),
    },
    rewrites={
        aten.silu.default: _rewrites.silu,
        aten.hardswish.default: _rewrites.hardswish,
    },
)
