"""Puts quantise/dequantise pairs into a graph."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from penjing.graph import Graph
from penjing.graph.straight_through import ops  # importing it registers the ops
from penjing.quantize._placement import Site
from penjing.quantize.grids import Affine, Grid, symmetric

PAIRS = frozenset(
    {
        ops.quantize_per_tensor.default,
        ops.dequantize_per_tensor.default,
        ops.quantize_per_channel.default,
        ops.dequantize_per_channel.default,
    }
)


def insert_activations(graph: Graph, laid: Mapping[Site, Affine]) -> dict[fx.Node, float]:
    """Inserts a pair behind every site. Returns the scale of each dequantised value."""
    nodes = graph.program.graph
    scales = {}
    for site, grid in laid.items():
        arguments = (grid.scale, grid.zero_point, grid.grid.low, grid.grid.high, grid.grid.dtype)
        readers = list(site.node.users) if site.users is None else [u for u in site.node.users if u in site.users]
        with nodes.inserting_after(site.node):
            quantized = _call(nodes, ops.quantize_per_tensor.default, (site.node, *arguments), like=site.node)
        with nodes.inserting_after(quantized):
            restored = _call(nodes, ops.dequantize_per_tensor.default, (quantized, *arguments), like=site.node)
        for reader in readers:
            reader.replace_input_with(site.node, restored)
        scales[restored] = grid.scale
    return scales


def insert_weights(
    graph: Graph, layers: tuple[fx.Node, ...], grid: Grid, input_scales: Mapping[fx.Node, float | None]
) -> None:
    """Inserts a pair behind the weight of every layer; a weight that several layers share gets one.

    Scales and zero points are buffers beside the weight: `layer1.conv.weight_scale`, `layer1.conv.weight_zero_point`.

    Args:
        graph: is changed.
        layers: nodes whose second argument is a weight with its output channels on axis 0.
        grid: symmetric integers.
        input_scales: of each layer's quantised input.
    """
    sharing: dict[int, list[fx.Node]] = {}
    for layer in layers:
        sharing.setdefault(id(graph.tensor(_weight(layer))), []).append(layer)
    for group in sharing.values():
        path = _weight(group[0])
        scales = torch.stack([_scales(graph, layer, grid, input_scales.get(layer)) for layer in group]).amax(0)
        graph.set_tensor(f"{path}_scale", scales)
        graph.set_tensor(f"{path}_zero_point", torch.zeros_like(scales, dtype=torch.int64))
        _insert_weight(graph, group, path, grid)


def _weight(layer: fx.Node) -> str:
    weight: Any = layer.args[1]
    return str(weight.target)


def _scales(graph: Graph, layer: fx.Node, grid: Grid, input_scale: float | None) -> torch.Tensor:
    bias = layer.args[2] if len(layer.args) > 2 else layer.kwargs.get("bias")
    constant = graph.tensor(str(bias.target)) if isinstance(bias, fx.Node) and bias.op == "get_attr" else None
    return symmetric(graph.tensor(_weight(layer)), grid, 0, constant, input_scale)


def _insert_weight(graph: Graph, group: list[fx.Node], path: str, grid: Grid) -> None:
    nodes = graph.program.graph
    with nodes.inserting_before(group[0]):  # layers come in order of execution, so the others stand behind it
        weight, scale, zero = (nodes.get_attr(name) for name in (path, f"{path}_scale", f"{path}_zero_point"))
        arguments = (scale, zero, 0, grid.low, grid.high, grid.dtype)
        quantized = _call(nodes, ops.quantize_per_channel.default, (weight, *arguments), like=group[0])
        restored = _call(nodes, ops.dequantize_per_channel.default, (quantized, *arguments), like=group[0])
    for node in (weight, scale, zero):
        node.meta = _origin(group[0])
    for layer in group:
        layer.update_arg(1, restored)


def _call(nodes: fx.Graph, target: Any, arguments: tuple[Any, ...], like: fx.Node) -> fx.Node:
    node = nodes.call_function(target, arguments)
    node.meta = _origin(like)
    return node


def _origin(node: fx.Node) -> dict[str, Any]:
    return {"module": node.meta.get("module", ""), "source": node.meta.get("source", "")}
