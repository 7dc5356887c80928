"""What LiteRT can do on the CPU with XNNPACK's kernels.

Its own profile shows which ops it executes in integers (version 2.3.0).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from penjing.capabilities._conditions import (
    BOUNDED,
    MOVES,
    always,
    divides,
    flat_or_square,
    over_space,
    rank,
    two_tensors,
    zero_pad,
)
from penjing.capabilities._records import Capabilities, Condition, Numbers, Placement, Zeros
from penjing.graph.clips import CLIPS
from penjing.graph.ops import node_arguments

aten = torch.ops.aten


def _images(node: fx.Node) -> bool:
    return rank(node) == 4


def _average(node: fx.Node) -> bool:
    """Tells whether the windows of a pool lie within the image."""
    arguments = node_arguments(node)
    padding = arguments[3] if isinstance(arguments[3], list | tuple) else [arguments[3]]
    return rank(node) == 4 and not any(padding) and not arguments[4] and arguments[6] is None


def _pool(node: fx.Node) -> bool:
    """Tells whether the entries of a max pool's windows lie side by side."""
    dilation: Any = node_arguments(node)[4]
    steps = dilation if isinstance(dilation, list | tuple) else [dilation]
    return rank(node) == 4 and all(step == 1 for step in steps)


_EIGHT_BITS = {"intN": 8, "power_of_two": 8, "ternary": 0, "binary": 0}

# Transposed convolutions are missing on purpose: they are written with floating-point weights.
_LAYERS: Mapping[Any, Condition] = {
    aten.conv1d.default: flat_or_square,
    aten.conv2d.default: flat_or_square,
    aten.conv1d.padding: flat_or_square,
    aten.conv2d.padding: flat_or_square,
    aten.linear.default: always,
}

_PLACEMENT = Placement(
    layers=_LAYERS,
    float_output=frozenset(),  # a layer computes in integers only where its output is rounded
    weights_alone=_LAYERS,
    integer={
        aten.add.Tensor: two_tensors,
        aten.sub.Tensor: two_tensors,
        aten.mul.Tensor: two_tensors,
        aten.cat.default: always,
        aten.concat.default: always,
        aten.concatenate.default: always,
        aten.avg_pool2d.default: _average,
        aten.adaptive_avg_pool2d.default: divides,
        aten.mean.dim: over_space,
        aten.sigmoid.default: always,
        aten.tanh.default: always,
        aten.hardsigmoid.default: always,
        aten.hardswish.default: always,
        aten.leaky_relu.default: always,
    },
    same={
        aten.max_pool2d.default: _pool,
        **MOVES,
        aten.pad.default: zero_pad,
        aten.constant_pad_nd.default: zero_pad,
        aten.upsample_nearest2d.vec: _images,
    },
    clips=CLIPS,
    bounded={**BOUNDED, aten.tanh.default: (-1.0, 1.0)},
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
