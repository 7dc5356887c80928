"""Small steps that rewrites of the exported ONNX graph are made of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

MICROSOFT = "com.microsoft"  # the domain of the runtime's own ops


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Returns the array of a constant; None if the value is no constant."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def dequantized(value: ir.Value | None) -> ir.Node | None:
    """Returns the node that dequantises an activation with one scale, if `value` comes from one."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or constant(node.inputs[0]) is not None:
        return None
    scale = constant(node.inputs[1])
    return node if scale is not None and scale.size == 1 else None


def stored_weight(value: ir.Value | None) -> ir.Node | None:
    """Returns the node that dequantises stored integers, if `value` comes from one."""
    node = value.producer() if value is not None else None
    return node if node and node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is not None else None


def initializer(graph: ir.Graph, name: str, array: np.ndarray | np.generic) -> ir.Value:
    """Returns a constant of the graph with this name, or with a number appended where another constant has the name.

    A constant that has the name and the same content is used again.
    """
    array, first, count = np.asarray(array), name, 1
    while name in graph.initializers:
        known = constant(graph.initializers[name])
        if known is not None and known.dtype == array.dtype and np.array_equal(known, array):
            return graph.initializers[name]
        name, count = f"{first}_{count}", count + 1
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def like(
    node: ir.Node,
    op: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any] | None = None,
    domain: str = "",
) -> ir.Node:
    """Returns a new node that is traced to the same origin as `node`."""
    return ir.node(op, inputs, attributes, domain=domain, metadata_props=dict(node.metadata_props))


def replace(graph: ir.Graph, node: ir.Node, new: Sequence[ir.Node]) -> None:
    """Replaces a node by others, the last of which gives the value that the node gave."""
    graph.insert_before(node, new)
    take_place(node.outputs[0], new[-1].outputs[0])
    graph.remove(node, safe=True)


def take_place(old: ir.Value, new: ir.Value, but: ir.Node | None = None) -> None:
    """Makes all readers of `old`, and the graph's outputs, read `new`; `but` keeps reading `old`."""
    new.shape, new.type = old.shape, old.type
    if but is None:
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        return
    for use in list(old.uses()):
        if use.node is not but:
            use.node.replace_input_with(use.idx, new)
    outputs = old.graph.outputs if old.is_graph_output() and old.graph is not None else []
    for index, value in enumerate(outputs):
        if value is old:
            outputs[index] = new  # type: ignore[index]
