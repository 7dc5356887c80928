"""What ExecuTorch does with XNNPACK's kernels. Its own profile shows which ops it executes in integers (version 1.5.1)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from penjing.capabilities._conditions import (
    BOUNDED,
    MOVES,
    always,
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


def _to_one(node: fx.Node) -> bool:
    """Tells whether an adaptive pool is a mean over height and width."""
    return rank(node) == 4 and list(node.args[1]) == [1, 1]  # type: ignore[arg-type]


def _pool(node: fx.Node) -> bool:
    """Tells whether the windows of a max pool leave no gaps."""
    _, kernel, stride = node_arguments(node)[:3]
    kernel, stride = _pair(kernel), _pair(stride or kernel)
    return rank(node) == 4 and all(step <= size for step, size in zip(stride, kernel, strict=True))


def _pair(sizes: Any) -> list[int]:
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    return sizes * 2 if len(sizes) == 1 else sizes


_EIGHT_BITS = {"intN": 8, "power_of_two": 8, "ternary": 0, "binary": 0}

# Transposed convolutions are missing on purpose: the kernel takes scales per input channel alone.
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
    weights_alone={},  # the runtime would widen the weights again in each run
    integer={
        aten.add.Tensor: two_tensors,
        aten.sub.Tensor: two_tensors,
        aten.mul.Tensor: two_tensors,
        aten.cat.default: always,
        aten.concat.default: always,
        aten.concatenate.default: always,
        aten.adaptive_avg_pool2d.default: _to_one,
        aten.mean.dim: over_space,
    },
    same={
        aten.max_pool2d.default: _pool,
        **MOVES,
        aten.pad.default: zero_pad,
        aten.constant_pad_nd.default: zero_pad,
    },
    clips=CLIPS,
    bounded=BOUNDED,
    gates=frozenset(),
)

EXECUTORCH = Capabilities(
    name="executorch",
    placement=_PLACEMENT,
    numbers=Numbers(
        preferred="uint8",  # written as int8 with the same steps and another zero point
        activations={"intN": 8, "uintN": 8},
        # Weights with a zero point of their own are missing: the kernels take none.
        weights=dict.fromkeys(("tensor", "channel"), _EIGHT_BITS),
        weights_alone={},
        stored=(8, 32),
        wider=("int8",),
    ),
    channel_multiples=(16, 8),
    zeros=Zeros(
        skipped=frozenset(),
        left_out=frozenset(),
        why="XNNPACK's kernels multiply by every weight, zero or not, and a .pte file stores every weight.",
    ),
)
