"""Exact rewrites of the exported ONNX graph, which let ONNX Runtime fuse more: no float op stays between integer ops."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from penjing.targets.onnx._nodes import (
    constant,
    dequantized,
    initializer,
    like,
    replace,
    stored_weight,
    take_place,
)
from penjing.targets.onnx._slices import join_slices

# Ops that only move values, so that they can work on the integers as well as on the real values that these stand for.
MOVERS = {"Slice", "Split", "Pad", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "MaxPool", "Resize"}


def rewrite(graph: ir.Graph) -> None:
    """Applies every rewrite in place."""
    pool_globally(graph)
    sink_dequantize(graph)
    cancel_pairs(graph)
    add_for_hardsigmoid(graph)
    integer_bias(graph)
    RemoveUnusedNodesPass()(ir.Model(graph, ir_version=10))
    join_slices(graph)  # looks at who reads what, so nothing may be left that nobody reads


def pool_globally(graph: ir.Graph) -> None:
    """Replaces means over all spatial axes by GlobalAveragePool, which has an integer kernel; ReduceMean has none."""
    for node in list(graph):
        if node.op_type != "ReduceMean" or len(node.inputs) < 2:
            continue
        axes, shape = constant(node.inputs[1]), node.inputs[0].shape if node.inputs[0] is not None else None
        if axes is None or shape is None or shape.rank() < 3:
            continue
        if sorted(axis % shape.rank() for axis in axes.tolist()) != list(range(2, shape.rank())):
            continue
        keep = node.attributes.get_int("keepdims", 1)
        pool = like(node, "GlobalAveragePool", [node.inputs[0]])
        new = [pool] if keep else [pool, like(node, "Squeeze", [pool.outputs[0], node.inputs[1]])]
        replace(graph, node, new)


def sink_dequantize(graph: ir.Graph) -> None:
    """Moves DequantizeLinear below ops that only move values, so that these work on bytes."""
    for node in list(graph):
        source = dequantized(node.inputs[0]) if node.op_type in MOVERS and node.inputs else None
        if source is None or not _moves_only(node):
            continue
        integers, scale, zero = source.inputs[0], source.inputs[1], source.inputs[2] if len(source.inputs) > 2 else None
        if node.op_type == "Pad" and zero is not None:  # the zero point stands for the real value 0
            if len(node.inputs) < 3:
                node.resize_inputs(3)
            node.replace_input_with(2, zero)
        node.replace_input_with(0, integers)
        for value in list(node.outputs):
            sunk = like(source, "DequantizeLinear", [value, scale, zero])
            take_place(value, sunk.outputs[0], but=sunk)
            if integers is not None:
                value.type = integers.type
            graph.insert_after(node, sunk)


def _moves_only(node: ir.Node) -> bool:
    if node.op_type == "Pad":
        filling = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1)
        mode = node.attributes.get_string("mode", "constant")
        return mode == "constant" and filling is not None and not filling.any()
    if node.op_type == "Resize":
        fills = node.attributes.get_string("coordinate_transformation_mode") == "tf_crop_and_resize"
        return node.attributes.get_string("mode", "nearest") == "nearest" and not fills
    return node.op_type != "MaxPool" or len(node.outputs) == 1


def cancel_pairs(graph: ir.Graph) -> None:
    """Removes a QuantizeLinear right after a DequantizeLinear with the same scale and zero point."""
    for node in list(graph):
        source = dequantized(node.inputs[0]) if node.op_type == "QuantizeLinear" else None
        integers = source.inputs[0] if source is not None else None
        if source is None or integers is None or node.outputs[0].is_graph_output():
            continue
        if _same(source.inputs[1:], node.inputs[1:]):
            ir.convenience.replace_all_uses_with(node.outputs[0], integers)


def add_for_hardsigmoid(graph: ir.Graph) -> None:
    """Replaces HardSigmoid between (de)quantise nodes by an addition, which has an integer kernel.

    clip(a·v + b, 0, 1), rounded to steps of s, gives the same integers as v + b/a, rounded to steps of s/a, if the range of
    the integers does the clipping: with zero point 0 it ends at 0 below, and at 255·s ≤ 1 above.
    """
    for node in list(graph):
        if node.op_type != "HardSigmoid" or dequantized(node.inputs[0]) is None:
            continue
        users = [use.node for use in node.outputs[0].uses()]
        if len(users) != 1 or users[0].op_type != "QuantizeLinear" or len(users[0].inputs) < 3:
            continue
        scale, zero = constant(users[0].inputs[1]), constant(users[0].inputs[2])
        if scale is None or zero is None or scale.size != 1 or zero.dtype != np.uint8 or zero.any():
            continue
        if float(scale.item()) * 255 > 1 + 1e-6:
            continue
        a, b = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
        step = initializer(graph, f"{node.name}_step", np.float32(b / a / 255))
        full = initializer(graph, f"{node.name}_full", np.array([255], np.uint8))
        shift = ir.node("DequantizeLinear", [full, step, initializer(graph, f"{node.name}_zero", np.uint8(0))])
        graph.insert_before(node, shift)
        users[0].replace_input_with(1, initializer(graph, f"{node.name}_scale", np.float32(scale.item() / a)))
        replace(graph, node, [like(node, "Add", [node.inputs[0], shift.outputs[0]])])


def integer_bias(graph: ir.Graph) -> None:
    """Gives a Gemm with a float output an int32 bias, without which ONNX Runtime computes it in float.

    (For a Gemm with a quantised output, ONNX Runtime makes that bias itself.)
    """
    for node in list(graph):
        if (
            node.op_type != "Gemm"
            or len(node.inputs) < 3
            or any(u.node.op_type in _QUANTIZING for u in node.outputs[0].uses())
        ):
            continue
        x, weight, bias = dequantized(node.inputs[0]), stored_weight(node.inputs[1]), constant(node.inputs[2])
        if x is None or weight is None or bias is None or node.inputs[2] is None:
            continue
        steps = constant(x.inputs[1]), constant(weight.inputs[1])
        if steps[0] is None or steps[1] is None or node.attributes.get_int("transB", 0) != 1:
            continue
        scale = (steps[0].astype(np.float64) * steps[1]).astype(np.float32)
        integers = np.rint(bias.astype(np.float64) / scale)
        if np.abs(integers).max(initial=0) >= 2**31 or bias.ndim != 1:
            continue
        name = node.inputs[2].name or node.name
        stored = initializer(graph, f"{name}_int32", integers.astype(np.int32))
        inputs = [stored, initializer(graph, f"{name}_scale", scale)]
        dequantize = ir.node("DequantizeLinear", inputs, {"axis": 0} if scale.ndim else {})
        graph.insert_before(node, dequantize)
        node.replace_input_with(2, dequantize.outputs[0])


_QUANTIZING = {"QuantizeLinear", "Relu", "Clip"}


def _same(left: Sequence[ir.Value | None], right: Sequence[ir.Value | None]) -> bool:
    if len(left) != len(right):
        return False
    for one, other in zip(left, right, strict=True):
        a, b = constant(one), constant(other)
        if one is not other and (a is None or b is None or a.dtype != b.dtype or not np.array_equal(a, b)):
            return False
    return True
