"""Where values come from: the model's inputs, or parameters and buffers alone."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

# These read the shape of a tensor, not its value: what they make is not computed from it.
SHAPE_ONLY = frozenset({
    aten.zeros_like.default, aten.ones_like.default, aten.full_like.default,
    aten.rand_like.default, aten.randn_like.default, aten.new_zeros.default, aten.new_ones.default,
    aten.new_full.default,
})  # fmt: skip


def is_constant(value: Any) -> bool:
    """Tells whether a value depends on parameters and buffers alone; what is no node does."""
    if not isinstance(value, fx.Node):
        return True
    return value.op == "get_attr" or (
        value.op == "call_function" and bool(value.all_input_nodes) and all(map(is_constant, value.all_input_nodes))
    )


def computed_from_inputs(program: fx.GraphModule, without: Collection[fx.Node] = ()) -> set[fx.Node]:
    """Returns the nodes whose values depend on the values of the model's inputs, not on their shapes alone.

    Args:
        program: the graph.
        without: inputs that don't count, because they never change.
    """
    found: set[fx.Node] = set()
    for node in program.graph.nodes:
        reads = node.target not in SHAPE_ONLY and holds_tensors(node) and not found.isdisjoint(node.all_input_nodes)
        if (node.op == "placeholder" and node not in without) or reads:
            found.add(node)
    return found


def holds_tensors(node: fx.Node) -> bool:
    """Tells whether the value of a node is a tensor, or several; sizes aren't."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value))
