"""Reading what a graph keeps constant: weights as integers with scales, biases, grids."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from integer_oracle._table import Codes, Weight, no_integer_form
from penjing.graph import Graph
from penjing.graph.sources import is_constant
from penjing.graph.straight_through import ops  # importing it registers the ops

QUANTIZE = frozenset({ops.quantize_per_tensor.default, ops.quantize_per_tensor.tensor})
DEQUANTIZE = frozenset({ops.dequantize_per_tensor.default, ops.dequantize_per_tensor.tensor})


def constant(graph: Graph, value: Any) -> Any:
    """Evaluates a node that depends on parameters and buffers alone; what is no node comes back as it is."""
    if not isinstance(value, fx.Node):
        return value
    if value.op == "get_attr":
        return graph.tensor(str(value.target)).detach()
    args, kwargs = (fx.map_arg(given, lambda node: constant(graph, node)) for given in (value.args, value.kwargs))
    with torch.no_grad():
        return value.target(*args, **kwargs)  # type: ignore[operator]


def grid(graph: Graph, node: fx.Node) -> Codes:
    """Returns the grid of a quantise or dequantise node with one scale."""
    scale, zero_point, low, high = (constant(graph, value) for value in node.args[1:5])
    return Codes(np.float32(float(scale)), int(zero_point), int(low), int(high))


def weight(graph: Graph, layer: fx.Node, node: fx.Node) -> Weight:
    """Returns a layer's weight as integers.

    Raises:
        NoIntegerForm: it isn't rounded, or its scales don't belong to whole output channels.
    """
    if node.target is ops.dequantize_per_channel.default and is_constant(node):
        codes, scales, zero_points = (constant(graph, value) for value in node.args[:3])
        axis = int(node.args[3])  # type: ignore[call-overload]
        if axis != 0:
            raise no_integer_form(layer, f"has a weight with scales on axis {axis}, not on its output channels")
    elif node.target in DEQUANTIZE and is_constant(node):
        codes, scales, zero_points = (constant(graph, value) for value in node.args[:3])
        scales, zero_points = (torch.as_tensor(value).reshape(1).expand(len(codes)) for value in (scales, zero_points))
    else:
        raise no_integer_form(layer, "has a weight that isn't stored as integers with scales per tensor or channel")
    values: Tensor = codes.long()
    if zero_points is not None:
        values = values - zero_points.long().reshape(-1, *[1] * (values.dim() - 1))
    return Weight(values, scales.to(torch.float32).numpy())
