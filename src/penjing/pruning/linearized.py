"""Replaces a network's parameters by their magnitudes, so that no terms of its sums cancel."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from penjing.graph import Graph

aten = torch.ops.aten


def absolute(graph: Graph) -> Graph:
    """Replaces the parameters of `graph` itself by their magnitudes, in double precision and trainable, and returns it.

    The running means of batch norms become zero, so that positive values stay positive and pass through ReLUs.
    """
    graph.double().eval().requires_grad_()
    for node in graph.program.graph.nodes:  # casts to another precision would mix it with double precision
        node.args, node.kwargs = map_aggregate(node.args, _doubled), map_aggregate(node.kwargs, _doubled)
    graph.program.recompile()
    means = {
        str(node.args[3].target)  # type: ignore[union-attr]
        for node in graph.program.graph.nodes
        if node.target is aten.batch_norm.default and node.args[3] is not None
    }
    with torch.no_grad():
        for name, tensor in graph.tensors().items():
            if name in means:
                tensor.zero_()
            elif isinstance(tensor, nn.Parameter):
                tensor.abs_()
    return graph


def _doubled(argument: Any) -> Any:
    return torch.double if isinstance(argument, torch.dtype) and argument.is_floating_point else argument


def ones(graph: Graph) -> tuple[Tensor, ...]:
    """Returns inputs of ones in the captured shapes, as a flat tuple; integer inputs, such as tokens, are ones too."""
    device = next(graph.parameters()).device
    return tuple(
        torch.ones_like(x, dtype=torch.double if x.is_floating_point() else None, device=device)
        for x in graph.example_inputs()
    )
