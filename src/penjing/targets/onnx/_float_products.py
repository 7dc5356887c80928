"""Layers that multiply stored integers with floating-point values: in the form that the runtime computes exactly and fastest.

If DequantizeLinear stayed, the runtime would widen the weights in each run. Worse, it fuses some such layers to a kernel that
rounds the activations to 8 bits, which nobody asked for.
"""

import numpy as np
import onnx_ir as ir

from penjing.targets.onnx._matrices import fits_blocks, products_of, read_matrix, use_blocks
from penjing.targets.onnx._nodes import constant, dequantized, initializer, like, replace, stored_weight

KERNEL_BITS = 4  # bits per weight for which MatMulNBits has a float kernel; 8-bit weights it widens in each run
FLOAT_LEVEL = 1  # the accuracy level of MatMulNBits that leaves activations as they are
_INTEGER_KERNELS = {"Conv", "Gemm", "MatMul"}


def multiply_in_float(graph: ir.Graph) -> None:
    """Rewrites, in place, each stored weight that no integer kernel reads.

    Linear layers with 4-bit weights become MatMulNBits, which widens the weights in registers: this is faster where a layer
    waits for memory, as it does with one token. The runtime widens other weights once, when it loads the file.
    """
    rounds = any(dequantized(node.outputs[0]) is not None for node in graph)
    for node in list(graph):
        if stored_weight(node.outputs[0]) is None or not _is_weight(node) or (rounds and _may_be_integer(node)):
            continue
        weight, codes = read_matrix(node), node.inputs[0]
        if weight is not None and codes is not None and weight.bits == KERNEL_BITS and fits_blocks(weight):
            for product in products_of(node):
                use_blocks(graph, product, product.inputs[0], codes, weight, FLOAT_LEVEL)
        if node.outputs[0].uses():
            _widen_once(graph, node)


def _is_weight(node: ir.Node) -> bool:
    codes = constant(node.inputs[0])
    return codes is not None and codes.ndim > 1  # others are biases, which belong to their layers


def _may_be_integer(weight: ir.Node) -> bool:
    """Tells whether an integer kernel may read a weight where activations are rounded."""
    if weight.attributes.get_int("block_size", 0):
        return False
    readers = [use.node for value in [weight.outputs[0], *_transposed(weight)] for use in value.uses()]
    return any(node.op_type in _INTEGER_KERNELS for node in readers)


def _transposed(weight: ir.Node) -> list[ir.Value]:
    return [use.node.outputs[0] for use in weight.outputs[0].uses() if use.node.op_type == "Transpose"]


def _widen_once(graph: ir.Graph, node: ir.Node) -> None:
    """Replaces DequantizeLinear by simpler ops, which the runtime computes once, when it loads the file."""
    codes, scale = constant(node.inputs[0]), constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    assert codes is not None and scale is not None and node.inputs[0] is not None
    name, axis = node.inputs[0].name, node.attributes.get_int("axis", 1)
    block = node.attributes.get_int("block_size", 0)
    if block:
        shape = [*codes.shape[:axis], codes.shape[axis] // block, block, *codes.shape[axis + 1 :]]
        scale_shape = [*scale.shape[: axis + 1], 1, *scale.shape[axis + 1 :]]
    else:
        scale_shape = [
            scale.size if place == axis % codes.ndim and scale.size > 1 else 1 for place in range(codes.ndim)
        ]
    steps = [like(node, "Cast", [node.inputs[0]], {"to": int(ir.DataType.FLOAT)})]
    if block:
        grouped = initializer(graph, f"{name}_grouped", np.array(shape, np.int64))
        steps.append(like(node, "Reshape", [steps[-1].outputs[0], grouped]))
    if zero is not None and zero.any():
        zeros = np.broadcast_to(zero.astype(np.float32), scale.shape).reshape(scale_shape)
        steps.append(like(node, "Sub", [steps[-1].outputs[0], initializer(graph, f"{name}_zeros", zeros)]))
    scales = initializer(graph, f"{name}_scales", scale.reshape(scale_shape))
    steps.append(like(node, "Mul", [steps[-1].outputs[0], scales]))
    if block:
        flat = initializer(graph, f"{name}_shape", np.array(codes.shape, np.int64))
        steps.append(like(node, "Reshape", [steps[-1].outputs[0], flat]))
    replace(graph, node, steps)
