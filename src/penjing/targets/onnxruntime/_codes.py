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
SMALL = 64  # constants that may be shapes, which must be folded
_GROUPS = ops.dequantize_per_channel_group.default
_READ = {("DequantizeLinear", 0), ("Cast", 0), ("MatMulInteger", 1)}  # where codes stand among an op's inputs
_WIDE = {torch.int16, torch.uint16}


def needs_opset(graph: Graph) -> bool:
    """Tells whether only a newer version of ONNX than the exporter's has what the graph needs."""
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
    """ONNX for `dequantize_per_channel_group`: scales for blocks of a row."""
    zero = opset21.Cast(zero_points, to=dtype)
    return opset21.DequantizeLinear(codes, scales, zero, axis=1, block_size=group_size)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {_GROUPS: dequantize_groups}


def folds(node: ir.Node) -> bool | None:
    """Tells the optimiser to leave stored codes as they are: what is looked up or computed from them is larger."""
    if node.op_type != "Cast" or node.inputs[0] is None or node.inputs[0].const_value is None:
        return None
    codes = node.inputs[0].const_value
    grows = ir.DataType(node.attributes.get_int("to", 0)).bitwidth > codes.dtype.bitwidth
    return False if grows and codes.dtype.bitwidth <= 8 and codes.size > SMALL else None


def pack(model: ir.Model) -> None:
    """Stores weights whose integers all fit into 4 bits in 4 bits.

    With scales per tensor or channel they are widened to 8 bits when the file is loaded, so that the 8-bit kernels
    multiply them; with scales per block the runtime reads them as they are.
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
            if node.attributes.get_int("block_size", 0):
                _narrow_zero_points(graph, node, narrow.dtype)
            elif node.op_type != "Cast":
                widened = ir.node("Cast", [value], {"to": int(wide)})
                graph.insert_before(node, widened)
                node.replace_input_with(1 if node.op_type == "MatMulInteger" else 0, widened.outputs[0])
        model.opset_imports[""] = max(model.opset_imports[""], OPSET)
    RemoveUnusedNodesPass()(model)


def _narrow_zero_points(graph: ir.Graph, node: ir.Node, dtype: Any) -> None:
    """Zero points are of their codes' type; they lie on the grid, so they fit."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is None or zero.const_value is None:
        return
    name = f"{zero.name}_{np.dtype(dtype).name}"
    if name not in graph.initializers:  # layers of one shape share their zeros
        stored = ir.tensor(zero.const_value.numpy().astype(dtype), name=name)
        graph.register_initializer(ir.val(name, const_value=stored))
    node.replace_input_with(2, graph.initializers[name])


def _narrow(value: ir.Value) -> np.ndarray | None:
    """Returns a constant of 8-bit integers as 4-bit ones if they all fit."""
    constant = value.const_value
    if constant is None or constant.dtype not in (ir.DataType.INT8, ir.DataType.UINT8) or not constant.size:
        return None
    array = constant.numpy()
    low, high, kind = (-8, 7, ml_dtypes.int4) if array.dtype == np.int8 else (0, 15, ml_dtypes.uint4)
    return array.astype(kind) if low <= array.min() and array.max() <= high else None
