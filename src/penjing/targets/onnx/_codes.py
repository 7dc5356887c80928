"""Weights in few bits: how the exporter writes them, and how the file stores them."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.onnx_opset import opset21
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

from penjing.graph import Graph

ops = torch.ops.quantized_decomposed
OPSET = 21  # the first with 4-bit and 16-bit integers, and with scales for blocks
SMALL = 64  # entries; constants of up to this size may be shapes, which the optimiser must fold
_GROUPS = ops.dequantize_per_channel_group.default
_READ = {
    ("DequantizeLinear", 0),
    ("Cast", 0),
    ("Gather", 0),
    ("MatMulInteger", 1),
}  # position of the codes among an op's inputs
_WIDE = {torch.int16, torch.uint16}


def needs_opset(graph: Graph) -> bool:
    """Tells whether the graph needs ops or dtypes that the exporter's default version of ONNX lacks."""
    return any(
        node.target is _GROUPS
        or (node.op == "call_function" and _WIDE & {a for a in node.args if isinstance(a, torch.dtype)})
        for node in graph.program.graph.nodes
    )


def dequantize_groups(
    codes: Any,
    scales: Any,
    zero_points: Any,
    low: int,
    high: int,
    dtype: int,
    group_size: int,
    output_dtype: int,
) -> Any:
    """Translates `dequantize_per_channel_group` into a DequantizeLinear with one scale per block of a row."""
    zero = opset21.Cast(zero_points, to=dtype)
    return opset21.DequantizeLinear(codes, scales, zero, axis=1, block_size=group_size)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {_GROUPS: dequantize_groups}


def folds(node: ir.Node) -> bool | None:
    """Tells the optimiser not to widen stored codes, which would make the file larger; None leaves it the choice."""
    if node.op_type != "Cast" or node.inputs[0] is None or node.inputs[0].const_value is None:
        return None
    codes = node.inputs[0].const_value
    grows = ir.DataType(node.attributes.get_int("to", 0)).bitwidth > codes.dtype.bitwidth
    return False if grows and codes.dtype.bitwidth <= 8 and codes.size > SMALL else None


def pack(model: ir.Model) -> None:
    """Stores, in place, those weights in 4 bits whose integers all fit into 4 bits.

    The runtime widens them when it loads the file, so that 8-bit and floating-point kernels can multiply them.
    """
    graph = model.graph
    for value in list(graph.initializers.values()):
        readers = [use.node for use in value.uses()]
        is_code = all((use.node.op_type, use.idx) in _READ for use in value.uses())
        narrow = _narrow(value) if is_code and readers and len(value.shape or ()) > 1 else None
        if narrow is None or value.const_value is None:
            continue
        wide = value.const_value.dtype
        value.const_value = ir.tensor(narrow, name=value.name)
        value.dtype = value.const_value.dtype
        for node in readers:
            if node.op_type != "Cast":
                widened = ir.node("Cast", [value], {"to": int(wide)})
                graph.insert_before(node, widened)
                node.replace_input_with(1 if node.op_type == "MatMulInteger" else 0, widened.outputs[0])
        model.opset_imports[""] = max(model.opset_imports[""], OPSET)
    RemoveUnusedNodesPass()(model)


def _narrow(value: ir.Value) -> np.ndarray | None:
    """Returns a constant of 8-bit integers as 4-bit ones if they all fit."""
    constant = value.const_value
    if constant is None or constant.dtype not in (ir.DataType.INT8, ir.DataType.UINT8) or not constant.size:
        return None
    array = constant.numpy()
    low, high, kind = (-8, 7, ml_dtypes.int4) if array.dtype == np.int8 else (0, 15, ml_dtypes.uint4)
    return array.astype(kind) if low <= array.min() and array.max() <= high else None
