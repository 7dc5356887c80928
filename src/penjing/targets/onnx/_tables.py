"""Tables of 4 bits in which rows are looked up: GatherBlockQuantized reads two numbers from each byte."""

import ml_dtypes
import numpy as np
import onnx_ir as ir

from penjing.targets.onnx._nodes import MICROSOFT, constant, initializer, like, replace

LEAST_BLOCK = 16  # numbers that share a scale; the op takes powers of two from here on


def gather_pairs(graph: ir.Graph, whole_blocks: bool = False) -> None:
    """Rewrites, in place, lookups in tables whose integers fit into 4 bits: `(codes[i] − zeros[i]) · scales[i]`.

    The op computes the same numbers. Tables that something else reads, too, stay as they are, and so do those whose rows have
    an odd number of entries.

    Args:
        graph: the graph.
        whole_blocks: whether the runtime takes only rows that are a whole number of blocks.
    """
    for node in list(graph):
        if node.op_type == "Mul":
            _gather(graph, node, whole_blocks)


def _gather(graph: ir.Graph, product: ir.Node, whole_blocks: bool) -> None:
    real, scales = _produced(product.inputs[0]), _lookup_of(product.inputs[1])
    if real is None or scales is None:
        return
    zeros = None
    if real.op_type == "Sub":
        zeros, real = _lookup_of(real.inputs[1]), _produced(real.inputs[0])
        if zeros is None:
            return
    flat = product
    if real is not None and real.op_type == "Reshape" and len(product.outputs[0].uses()) == 1:
        real, flat = _produced(real.inputs[0]), next(iter(product.outputs[0].uses())).node
        if flat.op_type != "Reshape":
            return
    codes = _lookup_of(real.inputs[0]) if real is not None and real.op_type == "Cast" else None
    if codes is None:
        return
    lookups = [codes, scales, *([] if zeros is None else [zeros])]
    if any(one.inputs[1] is not codes.inputs[1] for one in lookups):
        return
    table, scale = constant(codes.inputs[0]), constant(scales.inputs[0])
    shift = None if zeros is None else constant(zeros.inputs[0])
    if table is None or scale is None or table.ndim != 2 or len(codes.inputs[0].uses()) != 1:  # type: ignore[union-attr]
        return
    block = _block(table.shape[1], scale)
    if whole_blocks and block and table.shape[1] % block:
        return
    kind, low, high = (ml_dtypes.int4, -8, 7) if table.dtype == np.int8 else (ml_dtypes.uint4, 0, 15)
    fits = table.dtype in (np.int8, np.uint8) and table.size and low <= table.min() and table.max() <= high
    if not fits or not block or table.shape[1] % 2:
        return
    groups = scale.reshape(len(table), -1)
    name = codes.inputs[0].name  # type: ignore[union-attr]
    inputs = [
        initializer(graph, f"{name}_pairs", table.astype(kind)),
        codes.inputs[1],
        initializer(graph, f"{name}_blocks", groups.astype(np.float32)),
    ]
    if shift is not None or kind is ml_dtypes.uint4:
        shift = np.zeros_like(groups) if shift is None else shift.reshape(groups.shape)
        inputs.append(initializer(graph, f"{name}_zeros", shift.astype(kind)))
    attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": block}
    replace(graph, flat, [like(codes, "GatherBlockQuantized", inputs, attributes, MICROSOFT)])


def _produced(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _lookup_of(value: ir.Value | None) -> ir.Node | None:
    """Returns the lookup in a constant table that gives a value; an axis of size 1 may be added behind it."""
    node = _produced(value)
    if node is not None and node.op_type == "Unsqueeze":
        node = _produced(node.inputs[0])
    if node is None or node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
        return None
    return node if constant(node.inputs[0]) is not None else None


def _block(width: int, scale: np.ndarray) -> int:
    """Returns how many entries of a row share a scale, as the op takes it: the next power of two for whole rows; else 0."""
    groups = scale.size // len(scale)
    block = LEAST_BLOCK
    while block < (width if groups == 1 else width // groups):
        block *= 2
    return block if groups == 1 or block * groups == width else 0
