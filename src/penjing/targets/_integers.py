"""Quantised weights as the integers that a file stores."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

from penjing.graph import Graph
from penjing.graph.edit.rewriter import Writer, replace
from penjing.graph.sources import is_constant

ops = torch.ops.quantized_decomposed
QUANTIZE = {
    ops.quantize_per_tensor.default,
    ops.quantize_per_tensor.tensor,
    ops.quantize_per_channel.default,
    ops.quantize_per_channel_group.default,
}


def store_integer_weights(graph: Graph) -> None:
    """Stores quantised weights, in place, as buffers of integers instead of floating-point weights and quantise nodes.

    The exporters don't compute quantise nodes of constants themselves.
    """
    for node in list(graph.program.graph.nodes):
        if node.target not in QUANTIZE or not is_constant(node.args[0]):
            continue
        source = _root(node.args[0])
        name = source if _reads_alone(graph, node, source) else f"{source}_{node.name}"
        with torch.no_grad():
            values = evaluate(graph, node)
        if name == source:
            graph.masks.pop(name, None)
        graph.set_tensor(name, values)
        replace(node, Writer.before(node).fetch(name))


def _root(node: fx.Node) -> str:
    while node.op != "get_attr":
        node = node.all_input_nodes[0]
    return str(node.target)


def _reads_alone(graph: Graph, node: fx.Node, path: str) -> bool:
    """Tells whether nothing but `node` is computed from a tensor; the tensor's name may then hold the result of `node`."""
    tensor = graph.tensor(path)
    fetches = [n for n in graph.program.graph.nodes if n.op == "get_attr" and graph.tensor(str(n.target)) is tensor]
    used = [fetch for fetch in fetches if fetch.users]
    if len(used) != 1:
        return False
    (at,) = used
    while at is not node:
        if len(at.users) != 1:
            return False
        (at,) = at.users
    return True


def evaluate(graph: Graph, value: Any) -> Any:
    """Returns what a node computes from parameters and buffers alone; what is no node is returned as it is."""
    if not isinstance(value, fx.Node):
        return value
    if value.op == "get_attr":
        return graph.tensor(str(value.target)).detach()
    args = fx.map_arg(value.args, lambda n: evaluate(graph, n))
    kwargs = fx.map_arg(value.kwargs, lambda n: evaluate(graph, n))
    result: Tensor = value.target(*args, **kwargs)  # type: ignore[operator]
    return result
