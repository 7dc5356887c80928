"""What OpenVINO's CPU plugin can do. Its compiled models show which ops it executes in integers (version 2026.4).

It reads the same pairs of quantise and dequantise ops from the same ONNX file as ONNX Runtime does, so the tables that they
share stand in `onnxruntime.py`. Two small linears in a row are an exception that no table can tell of: the plugin may join them
to one kernel, which computes in floating point.
"""

from dataclasses import replace

import torch
from torch import fx

from penjing.capabilities._records import Capabilities, Zeros
from penjing.capabilities.onnxruntime import ONNXRUNTIME
from penjing.graph.ops import node_arguments

aten = torch.ops.aten
_CATS = (aten.cat.default, aten.concat.default, aten.concatenate.default)


def _over_channels(node: fx.Node) -> bool:
    """Tells whether tensors are joined along channels: along other axes, the plugin goes back to floating point behind them."""
    return node_arguments(node)[1] == 1


# Products of two activations are missing on purpose: the plugin computes them in floating point.
_INTEGER = {
    op: condition
    for op, condition in ONNXRUNTIME.placement.integer.items()
    if op not in (aten.matmul.default, aten.bmm.default)
} | dict.fromkeys(_CATS, _over_channels)

OPENVINO = Capabilities(
    name="openvino",
    # The ranges of activations must be known before the run.
    placement=replace(ONNXRUNTIME.placement, integer=_INTEGER, dynamic=frozenset()),
    numbers=replace(ONNXRUNTIME.numbers, dynamic_weights={}, dynamic_groups=frozenset()),
    channel_multiples=(16, 8),
    zeros=Zeros(
        skipped=frozenset(),
        left_out=frozenset(),
        why="OpenVINO multiplies by every weight, zero or not, and its files store every weight.",
    ),
)
