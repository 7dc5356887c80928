"""What ONNX Runtime's CPU provider can do. Its optimised models show which ops it executes in integers (version 1.32)."""

import torch
from torch import fx

from penjing.capabilities._conditions import BOUNDED, MOVES, always, divides, two_tensors
from penjing.capabilities._records import Capabilities, Numbers, Placement, Zeros
from penjing.graph.clips import CLIPS
from penjing.graph.ops import CONVOLUTIONS, LOOKUPS, node_arguments

aten = torch.ops.aten


def _images(node: fx.Node) -> bool:
    return bool(node.args[0].meta["val"].dim() == 4)  # type: ignore[union-attr]


def _over_space(node: fx.Node) -> bool:
    """Tells whether a mean runs over height and width, so that it is a global pool."""
    x, axes = node.args[0].meta["val"], node_arguments(node)[1]  # type: ignore[union-attr]
    return x.dim() == 4 and axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]


def _zero_pad(node: fx.Node) -> bool:
    """Tells whether a pad fills with zeros, which every grid holds; only such a pad passes integers on."""
    arguments = node_arguments(node)
    if node.target is aten.constant_pad_nd.default:
        return arguments[2] in (None, 0)
    return arguments[2] == "constant" and arguments[3] in (None, 0)


_EIGHT_BITS = {"intN": 8, "uintN": 8, "power_of_two": 8, "ternary": 0, "binary": 0}
_TABLES = {"intN": 8, "uintN": 8, "power_of_two": 8}
_SIXTEEN_BITS = {"intN": 16, "uintN": 16, "power_of_two": 16, "ternary": 0, "binary": 0}

# Transposed convolutions are missing on purpose: the runtime computes them in floating point, and dequantises their weights
# at each run.
_LAYERS = {**dict.fromkeys(CONVOLUTIONS, always), aten.linear.default: always}

_PLACEMENT = Placement(
    layers=_LAYERS,
    float_output=frozenset({aten.linear.default}),
    weights_alone=_LAYERS,
    integer={
        aten.add.Tensor: two_tensors,
        aten.mul.Tensor: two_tensors,
        aten.cat.default: always,
        aten.concat.default: always,
        aten.concatenate.default: always,
        aten.avg_pool2d.default: _images,
        aten.adaptive_avg_pool2d.default: divides,
        aten.mean.dim: _over_space,
        aten.sigmoid.default: always,
        aten.hardsigmoid.default: always,
        aten.leaky_relu.default: always,
        aten.matmul.default: two_tensors,
        aten.bmm.default: two_tensors,
    },
    same={
        aten.max_pool2d.default: _images,
        **MOVES,
        aten.pad.default: _zero_pad,
        aten.constant_pad_nd.default: _zero_pad,
        aten.upsample_nearest2d.vec: _images,
    },
    clips=CLIPS,
    bounded=BOUNDED,
    gates=frozenset({aten.silu.default, aten.hardswish.default}),
    dynamic=frozenset({aten.linear.default}),
    tables=dict.fromkeys(LOOKUPS, always),
)

_NUMBERS = Numbers(
    preferred="uint8",
    # Activations of fewer than 8 bits run in the 8-bit kernels, with a clip of the integers. Those of 16 bits are missing:
    # the runtime dequantises them before it multiplies.
    activations={"intN": 8, "uintN": 8},
    # Weights of up to 4 bits are stored in 4 and widened when the file is loaded. Weights with a scale for each group are
    # missing: the runtime multiplies them in floating point.
    weights=dict.fromkeys(("tensor", "channel"), _EIGHT_BITS),
    weights_alone={
        "tensor": {**_SIXTEEN_BITS, "codebook": 256},
        "channel": {**_SIXTEEN_BITS, "codebook": 256},
        "group": _SIXTEEN_BITS,
    },
    stored=(4, 8, 16, 32),
    wider=("int8",),  # 16-bit integers are no faster than floating point
    # Weights of up to 4 bits are stored in 4, others in 8: MatMulNBits has kernels for both.
    dynamic_weights={"group": _EIGHT_BITS},
    dynamic_groups=frozenset({16, 32, 64, 128, 256}),
    # GatherBlockQuantized looks up in tables of 4 bits; those of 8 bits are gathered as integers and scaled then.
    tables=dict.fromkeys(("tensor", "channel", "group"), _TABLES),
)

ONNXRUNTIME = Capabilities(
    name="onnxruntime",
    placement=_PLACEMENT,
    numbers=_NUMBERS,
    channel_multiples=(16, 8),
    zeros=Zeros(
        skipped=frozenset(),
        left_out=frozenset(),
        why="ONNX Runtime multiplies by every weight, zero or not, and an ONNX file stores every weight.",
    ),
)
