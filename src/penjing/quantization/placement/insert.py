"""Inserts quantise/dequantise pairs, and stored codes, into a graph."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.graph import Graph
from penjing.graph.edit.rewriter import Writer
from penjing.graph.propagation import resized
from penjing.graph.straight_through import ops  # importing it registers the ops
from penjing.quantization.grids import Affine, Laid, Scaled, Shared
from penjing.quantization.placement.sites import Site
from penjing.quantization.weights.laying import LaidWeight

aten = torch.ops.aten
PAIRS = frozenset(
    {
        ops.quantize_per_tensor.default,
        ops.quantize_per_tensor.tensor,
        ops.dequantize_per_tensor.default,
        ops.dequantize_per_tensor.tensor,
        ops.quantize_per_channel.default,
        ops.dequantize_per_channel.default,
        ops.quantize_per_channel_group.default,
        ops.dequantize_per_channel_group.default,
        ops.quantize_per_token.default,
        ops.dequantize_per_token.default,
    }
)

# Keys under which the nodes of an activation's pair keep the node whose value set the grid, and the grid's bounds.
GRID_OF, WITHIN = "grid_of", "within"


def insert_activations(graph: Graph, laid: Mapping[Site, Affine]) -> dict[fx.Node, float]:
    """Inserts a quantise/dequantise pair behind every site; returns the scale of each dequantised value."""
    scales = {}
    for site, grid in laid.items():
        arguments = (grid.scale, grid.zero_point, grid.grid.low, grid.grid.high, grid.grid.dtype)
        readers = list(site.node.users) if site.users is None else [u for u in site.node.users if u in site.users]
        write = Writer.after(site.node, meta={GRID_OF: site.grid_of.name, WITHIN: site.within}, values=True)
        quantized = write(ops.quantize_per_tensor.default, site.node, *arguments)
        restored = write(ops.dequantize_per_tensor.default, quantized, *arguments)
        for reader in readers:
            reader.replace_input_with(site.node, restored)
        scales[restored] = grid.scale
    return scales


def insert_weights(graph: Graph, weights: Sequence[LaidWeight]) -> None:
    """Replaces each weight by its rounded form, before the layers that read it.

    A weight on an integer grid stays a float parameter with a pair behind it. Its scales and zero points are stored as
    `layer1.conv.weight_scale` and `layer1.conv.weight_zero_point`; with one scale per tensor they are constants of the pair.
    Ternary and binary weights are integers, `layer1.conv.weight_codes`, times a parameter, `layer1.conv.weight_scale`.
    Weights that share values are indices, `layer1.conv.weight_codes`, into a parameter, `layer1.conv.weight_table`.
    """
    for weight in weights:
        restored = _WeightNodes(graph, weight).write()
        parameter = graph.tensor(weight.path)
        for layer in weight.layers:
            for node in layer.all_input_nodes:
                if _reads(graph, node, parameter):
                    layer.replace_input_with(node, restored)
        if not isinstance(weight.laid, Laid):
            graph.masks.pop(weight.path, None)  # the codes hold the masked weights' zeros


class _WeightNodes:
    """Writes the nodes that give one rounded weight, before the first layer that reads the weight."""

    def __init__(self, graph: Graph, weight: LaidWeight) -> None:
        self._graph, self._weight = graph, weight
        self._parameter = graph.tensor(weight.path)
        self._given = next(node for node in weight.layers[0].all_input_nodes if _reads(graph, node, self._parameter))
        # Layers come in order of execution, so the others stand behind the first.
        self._write = Writer.before(weight.layers[0], values=True)

    def write(self) -> fx.Node:
        """Writes the nodes; returns the one that gives the rounded weight."""
        laid = self._weight.laid
        if isinstance(laid, Laid):
            return self._pair(laid)
        return self._scaled(laid) if isinstance(laid, Scaled) else self._shared(laid)

    def _pair(self, laid: Laid) -> fx.Node:
        parameter = self._fetch("")
        kind, grid = self._weight.choice.grain.kind, laid.grid
        arguments: tuple[Any, ...]
        if kind == "tensor":
            arguments = (float(laid.scale), int(laid.zero_point), grid.low, grid.high, grid.dtype)
            quantized = self._write(ops.quantize_per_tensor.default, parameter, *arguments)
            return self._write(ops.dequantize_per_tensor.default, quantized, *arguments)
        scale, zero = (
            self._store("_scale", self._by_group(laid.scale)),
            self._store("_zero_point", self._by_group(laid.zero_point)),
        )
        if kind == "channel":
            arguments = (scale, zero, 0, grid.low, grid.high, grid.dtype)
            quantized = self._write(ops.quantize_per_channel.default, parameter, *arguments)
            return self._write(ops.dequantize_per_channel.default, quantized, *arguments)
        flat = self._shaped(parameter, self._parameter.shape, self._matrix_shape)
        arguments = (scale, zero, grid.low, grid.high, grid.dtype, self._weight.choice.grain.size)
        quantized = self._write(ops.quantize_per_channel_group.default, flat, *arguments)
        return self._groups(quantized, arguments)

    def _scaled(self, laid: Scaled) -> fx.Node:
        kind, grid = self._weight.choice.grain.kind, laid.grid
        shape = self._matrix_shape if kind == "group" else list(self._parameter.shape)
        codes = self._store("_codes", laid.codes.reshape(shape))
        scale = self._store("_scale", self._trained(self._by_group(laid.scale)))
        zero = self._store(
            "_zero_point", torch.zeros(self._rows(laid.scale), dtype=torch.int64, device=laid.scale.device)
        )
        if kind == "group":
            return self._groups(codes, (scale, zero, grid.low, grid.high, grid.dtype, self._weight.choice.grain.size))
        if kind == "tensor":
            scale = self._write(aten.expand.default, scale, [len(self._parameter)])
        return self._write(ops.dequantize_per_channel.default, codes, scale, zero, 0, grid.low, grid.high, grid.dtype)

    def _shared(self, laid: Shared) -> fx.Node:
        codes = self._store("_codes", laid.codes)
        table = self._store("_table", self._trained(laid.table[:, 1:] if laid.zero_first else laid.table))
        if laid.zero_first:
            table = self._write(aten.constant_pad_nd.default, table, [1, 0], 0.0)
        places = self._write(aten.to.dtype, codes, torch.int64)
        shared = self._write(aten.gather.default, table, 1, places)
        return self._shaped(shared, laid.codes.shape, self._parameter.shape)

    def _groups(self, integers: fx.Node, arguments: tuple[Any, ...]) -> fx.Node:
        restored = self._write(ops.dequantize_per_channel_group.default, integers, *arguments, torch.float32)
        return self._shaped(restored, self._matrix_shape, self._parameter.shape)

    @property
    def _matrix_shape(self) -> list[int]:
        """The shape of the weight as a matrix with a row per output channel, which the ops for groups take."""
        return [len(self._parameter), self._parameter[0].numel()]

    def _by_group(self, rows: Tensor) -> Tensor:
        """Returns one number per row, as `(channels, groups)` where rows are groups."""
        return rows.reshape(len(self._parameter), -1) if self._weight.choice.grain.kind == "group" else rows

    def _rows(self, scale: Tensor) -> tuple[int, ...]:
        kind = self._weight.choice.grain.kind
        return (len(self._parameter),) if kind == "tensor" else tuple(self._by_group(scale).shape)

    def _trained(self, tensor: Tensor) -> nn.Parameter:
        return nn.Parameter(tensor.clone(), self._parameter.requires_grad)

    def _store(self, suffix: str, tensor: Tensor) -> fx.Node:
        self._graph.set_tensor(self._weight.path + suffix, tensor)
        return self._fetch(suffix)

    def _fetch(self, suffix: str) -> fx.Node:
        path = self._weight.path + suffix
        given, tensor = self._given.meta["val"], self._graph.tensor(path)
        return self._write.fetch(path, resized(given, list(tensor.shape)).to(tensor.dtype))

    def _shaped(self, node: fx.Node, now: Sequence[int], wanted: Sequence[int]) -> fx.Node:
        return node if list(now) == list(wanted) else self._write(aten.reshape.default, node, list(wanted))


def _reads(graph: Graph, node: fx.Node, parameter: Tensor) -> bool:
    return node.op == "get_attr" and graph.tensor(str(node.target)) is parameter
