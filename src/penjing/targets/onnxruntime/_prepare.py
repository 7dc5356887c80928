"""Makes a copy of a graph ready for the exporter: evaluation mode, integer weights, what the exporter trips over."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

from penjing.graph import Graph, fold_batch_norms

aten = torch.ops.aten
ops = torch.ops.quantized_decomposed
QUANTIZE = {ops.quantize_per_tensor.default, ops.quantize_per_tensor.tensor, ops.quantize_per_channel.default}
ACTIVATIONS = {ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default}
CLAMPS = {aten.clamp.default, aten.hardtanh.default}


def prepared(graph: Graph) -> Graph:
    """Returns a copy of `graph` that exports well and computes the same."""
    ready = fold_batch_norms(graph).eval()
    _store_integer_weights(ready)
    _unsigned_activations(ready.program.graph)
    _float_bounds(ready.program.graph)
    return ready.refresh()


def _store_integer_weights(graph: Graph) -> None:
    """Replaces each quantised constant by a buffer of its integers: the exporter folds no quantise node itself."""
    for node in list(graph.program.graph.nodes):
        if node.target not in QUANTIZE or not _is_constant(node.args[0]):
            continue
        source = _root(node.args[0])
        name = source if len(_readers(graph, source)) == 1 else f"{source}_{node.name}"
        with torch.no_grad():
            values = _evaluate(graph, node)
        if name == source:
            graph.masks.pop(name, None)
        graph.set_tensor(name, values)
        with graph.program.graph.inserting_before(node):
            stored = graph.program.graph.get_attr(name)
        stored.meta["module"] = node.meta.get("module", "")
        node.replace_all_uses_with(stored)
        graph.program.graph.erase_node(node)


def _unsigned_activations(nodes: fx.Graph) -> None:
    """Moves signed 8-bit activations up by 128, which changes no real value: on x86 the runtime fuses unsigned ones only."""
    for node in nodes.nodes:
        if node.target not in ACTIVATIONS or _is_constant(node.args[0]):
            continue
        value, scale, zero_point, low, high, dtype = node.args
        if dtype is torch.int8:
            node.args = (value, scale, zero_point + 128, low + 128, high + 128, torch.uint8)


def _is_constant(value: Any) -> bool:
    """Tells whether a value depends on parameters and buffers alone."""
    if not isinstance(value, fx.Node):
        return True
    return value.op == "get_attr" or (
        value.op == "call_function" and bool(value.all_input_nodes) and all(map(_is_constant, value.all_input_nodes))
    )


def _root(node: fx.Node) -> str:
    while node.op != "get_attr":
        node = node.all_input_nodes[0]
    return str(node.target)


def _readers(graph: Graph, path: str) -> list[fx.Node]:
    tensor = graph.tensor(path)
    fetches = [n for n in graph.program.graph.nodes if n.op == "get_attr" and graph.tensor(str(n.target)) is tensor]
    return [user for fetch in fetches for user in fetch.users]


def _evaluate(graph: Graph, value: Any) -> Any:
    if not isinstance(value, fx.Node):
        return value
    if value.op == "get_attr":
        return graph.tensor(str(value.target)).detach()
    args = fx.map_arg(value.args, lambda n: _evaluate(graph, n))
    kwargs = fx.map_arg(value.kwargs, lambda n: _evaluate(graph, n))
    result: Tensor = value.target(*args, **kwargs)  # type: ignore[operator]
    return result


def _float_bounds(nodes: fx.Graph) -> None:
    """Makes both bounds of a clamp floats: the exporter's type promotion fails on one of each kind."""
    for node in nodes.nodes:
        if node.target in CLAMPS and node.meta["val"].dtype.is_floating_point:
            node.args = (node.args[0], *(float(a) if isinstance(a, int) else a for a in node.args[1:]))
