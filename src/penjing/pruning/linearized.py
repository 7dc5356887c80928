"""A network with the magnitudes of all parameters, so that its sums add up and never cancel."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from penjing.graph import Graph

aten = torch.ops.aten


def absolute(graph: Graph) -> Graph:
    """Turns `graph` itself into that network, in double precision and with no parameter frozen, and returns it.

    Means of batch norms are zero, so that positive values stay positive, and activation functions let them pass.
    """
    graph.double().eval().requires_grad_()
    for node in graph.program.graph.nodes:  # casts that are written into the model would mix precisions
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
    """Returns flat inputs of ones, of the captured shapes; whole numbers, as of words, are ones too."""
    device = next(graph.parameters()).device
    return tuple(
        torch.ones_like(x, dtype=torch.double if x.is_floating_point() else None, device=device)
        for x in graph.example_inputs()
    )
