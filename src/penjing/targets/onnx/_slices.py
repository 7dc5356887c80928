"""Joins slices of several axes: `x[:, :, ::2, ::2]` is captured as two, and a runtime would copy the value twice."""

import numpy as np
import onnx_ir as ir

from penjing.targets.onnx._nodes import constant, initializer, like, replace


def join_slices(graph: ir.Graph) -> None:
    """Makes one Slice of two that follow each other and cut different axes."""
    for node in list(graph):
        inner = _only_read_here(node)
        if inner is None:
            continue
        parts = [_parts(one) for one in (inner, node)]
        if parts[0] is None or parts[1] is None or set(parts[0][2].tolist()) & set(parts[1][2].tolist()):
            continue
        joined = [np.concatenate(both) for both in zip(*parts, strict=True)]
        named = zip(("starts", "ends", "axes", "steps"), joined, strict=True)
        cut = [initializer(graph, f"{node.name}_{name}", values) for name, values in named]
        replace(graph, node, [like(node, "Slice", [inner.inputs[0], *cut])])
        graph.remove(inner, safe=True)


def _only_read_here(node: ir.Node) -> ir.Node | None:
    """Returns the Slice that a Slice reads, if nothing else reads what it makes."""
    value = node.inputs[0] if node.op_type == "Slice" else None
    inner = value.producer() if value is not None else None
    if value is None or inner is None or inner.op_type != "Slice" or value.is_graph_output() or len(value.uses()) != 1:
        return None
    return inner


def _parts(node: ir.Node) -> list[np.ndarray] | None:
    """Returns where a Slice starts and ends, its axes counted from the first, and its steps; None unless all are constants."""
    value = node.inputs[0]
    given = [constant(one) for one in node.inputs[1:]]
    if value is None or value.shape is None or len(given) < 2 or any(one is None for one in given):
        return None
    starts, ends, *rest = [one.astype(np.int64).reshape(-1) for one in given if one is not None]
    axes = rest[0] if rest else np.arange(starts.size)
    steps = rest[1] if len(rest) > 1 else np.ones(starts.size, np.int64)
    return [starts, ends, axes % value.shape.rank(), steps]
