"""Linear layers whose input ranges are found at run time: how their ops are exported, and the kernels that run them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript.onnx_opset import opset18
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

from penjing.targets.onnx._matrices import Stored, fits_blocks, products_of, read_matrix, use_blocks
from penjing.targets.onnx._nodes import initializer, like, replace, stored_weight

ops = torch.ops.quantized_decomposed
INT8_LEVEL = 4  # the accuracy level of MatMulNBits that rounds each block of the activations to int8
LEAST_RANGE = 1e-5  # `choose_qparams_per_token` takes the largest magnitude of a group to be at least this
# The ops into which the translations below turn a rounding in groups, from the last op to the first.
_GROUPED = ("Reshape", "Mul", "Clip", "Round", "Div", "Reshape")


def _range_of(x: Any, low: int, high: int, eps: float, dtype: int) -> Any:
    _, scale, zero = opset18.DynamicQuantizeLinear(x)
    return scale, zero


def _quantize(x: Any, scale: Any, zero: Any, low: int, high: int, dtype: int) -> Any:
    return opset18.QuantizeLinear(x, scale, zero)


def _dequantize(codes: Any, scale: Any, zero: Any, low: int, high: int, dtype: int, out_dtype: int = -1) -> Any:
    return opset18.DequantizeLinear(codes, scale, zero)


def _range_of_groups(x: Any, dtype: int) -> Any:
    last = opset18.Constant(value_ints=[-1])
    largest = opset18.ReduceMax(opset18.Abs(x), last, keepdims=1)
    scale = opset18.Div(opset18.Max(largest, _number(LEAST_RANGE)), _number(127.0))
    return scale, opset18.Sub(scale, scale)


def _quantize_groups(x: Any, scale: Any, zero: Any, low: int, high: int, dtype: int) -> Any:
    """Rounds to integers that are kept as floating-point numbers."""
    return opset18.Clip(opset18.Round(opset18.Div(x, scale)), _number(float(low)), _number(float(high)))


def _dequantize_groups(codes: Any, scale: Any, zero: Any, low: int, high: int, dtype: int, output_dtype: int) -> Any:
    return opset18.Mul(codes, scale)


def _number(value: float) -> Any:
    return opset18.Constant(value_float=value)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    ops.choose_qparams.tensor: _range_of,
    ops.quantize_per_tensor.tensor: _quantize,
    ops.dequantize_per_tensor.tensor: _dequantize,
    ops.choose_qparams_per_token.default: _range_of_groups,
    ops.quantize_per_token.default: _quantize_groups,
    ops.dequantize_per_token.default: _dequantize_groups,
}


def multiply_at_run_time(graph: ir.Graph) -> None:
    """Rewrites, in place, the linear layers whose input is rounded to a range that is found at run time.

    A layer with one range for its whole input becomes MatMulInteger, a layer with a range per group MatMulNBits.
    """
    _quantize_once(graph)
    for node in list(graph):
        if stored_weight(node.outputs[0]) is None:
            continue
        weight, codes = read_matrix(node), node.inputs[0]
        if weight is None or codes is None or weight.bits > 8:
            continue
        for product in products_of(node):
            rounding = _rounding(product.inputs[0])
            if rounding is not None and not weight.group:
                _multiply_integers(graph, product, rounding, codes, weight)
                continue
            source = _source_of_groups(product.inputs[0], weight.group)
            if source is not None and weight.group and fits_blocks(weight):
                use_blocks(graph, product, source, codes, weight, INT8_LEVEL)


def _quantize_once(graph: ir.Graph) -> None:
    """Drops each QuantizeLinear whose range a DynamicQuantizeLinear found: that node gives the integers too."""
    for node in list(graph):
        found = node.inputs[1].producer() if node.op_type == "QuantizeLinear" and node.inputs[1] is not None else None
        if found is not None and found.op_type == "DynamicQuantizeLinear" and found.inputs[0] is node.inputs[0]:
            ir.convenience.replace_all_uses_with(node.outputs[0], found.outputs[0])


def _rounding(value: ir.Value | None) -> ir.Node | None:
    """Returns the DynamicQuantizeLinear whose integers a value stands for."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return None
    source = node.inputs[0].producer()
    return source if source is not None and source.op_type == "DynamicQuantizeLinear" else None


def _source_of_groups(value: ir.Value | None, size: int) -> ir.Value | None:
    """Returns the value as it was before it was rounded in groups of this size; None where it wasn't."""
    for op in _GROUPED:
        node = value.producer() if value is not None else None
        if node is None or node.op_type != op:
            return None
        if op == "Div" and (node.inputs[0] is None or node.inputs[0].shape is None or node.inputs[0].shape[-1] != size):
            return None
        value = node.inputs[0]
    return value


def _multiply_integers(graph: ir.Graph, product: ir.Node, rounding: ir.Node, codes: ir.Value, weight: Stored) -> None:
    """Replaces a linear layer by an integer product, times both scales, plus the bias.

    The runtime fuses nodes in this order to one kernel.
    """
    integers, scale, zero = rounding.outputs
    columns = initializer(graph, f"{codes.name}_transposed", np.ascontiguousarray(weight.codes.T))
    inputs: list[ir.Value | None] = [integers, columns, zero]
    if weight.zero.any():
        zeros = weight.zero.astype(weight.codes.dtype).reshape(-1)
        inputs.append(initializer(graph, f"{codes.name}_zeros", zeros if zeros.size > 1 else zeros.reshape(())))
    scales = weight.scale.reshape(-1) if weight.scale.size > 1 else weight.scale.reshape(())
    multiplied = like(product, "MatMulInteger", inputs)
    real = like(product, "Cast", multiplied.outputs, {"to": int(ir.DataType.FLOAT)})
    both = like(product, "Mul", [scale, initializer(graph, f"{codes.name}_scales", scales)])
    new: Sequence[ir.Node] = [multiplied, real, both, like(product, "Mul", [real.outputs[0], both.outputs[0]])]
    bias = product.inputs[2] if len(product.inputs) > 2 else None
    if bias is not None:
        new = [*new, like(product, "Add", [new[-1].outputs[0], bias])]
    replace(graph, product, new)
