"""Scales a layer's input channels, whose ranges differ much, to one range, and divides the layer's weights by the scales.

`cross_layer_equalization` scales channels between two layers to round weights better. Here the channels of one layer's
input are scaled to round the input better: the columns of a table, the parts of a concatenation, or one channel that
dwarfs the others. Scales are powers of two, so the float function stays the same to the last bit where nothing
overflows.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph import Graph
from penjing.graph.clips import CLIPS
from penjing.graph.edit.rewriter import Writer
from penjing.graph.ops import LAYERS, node_arguments
from penjing.quantization.calibration.noise import channel_axis
from penjing.quantization.corrections._cross_layer_equalization import incoming
from penjing.quantization.corrections._pairs import Blocked, ReadingLayer, find_pairs, scalable

aten = torch.ops.aten
RANGE = ".input_range"  # suffix of the constant that divides a layer's input, stored beside the layer's weight
LARGEST = 60  # binary logarithm of the largest scale: products of two stay within float32
JOINS = frozenset({aten.cat.default, aten.concat.default, aten.concatenate.default})
UNIFORM = frozenset({aten.dropout.default, aten.feature_dropout.default, aten.contiguous.default, aten.clone.default})
Action = Callable[[], None]


def even_scales(ranges: Tensor) -> Tensor:
    """Returns the powers of two, `(channels,)`, that bring each channel's range to the largest channel's.

    A channel of zeros gets the largest scale: with a smaller one, its weights would dwarf those of all others.
    """
    exponents = (ranges.max() / ranges).log2().floor().clamp(0, LARGEST)
    seen = ranges > 0
    largest = exponents[seen].max() if bool(seen.any()) else 0.0
    return torch.exp2(torch.where(seen, exponents, largest)).float()


def equalize_inputs(
    graph: Graph, scales: Mapping[str, Tensor], in_integers: Collection[str], moving: Collection[Any]
) -> list[str]:
    """Multiplies the inputs of layers by these scales and divides the layers' weights by them; the function stays the same.

    The scales go into the weights of the layer in front, or of the layers in front of a concatenation. A graph input,
    or a value that is computed in floating point, is divided by a constant right before the layer.

    Args:
        graph: a float graph with folded batch norms; it is changed in place.
        scales: the scales of the input's channels, `(channels,)`, by the name of the layer's node.
        in_integers: names of the nodes that give integers, so that no scale can be inserted behind them.
        moving: ops that pass integers on unchanged.

    Returns:
        The names of the layers whose inputs were scaled.
    """
    tied = {id(graph.tensor(path)) for path in graph.ties()}
    done = []
    for name, by in scales.items():
        layer = next(node for node in graph.program.graph.nodes if node.name == name)
        try:
            actions = _Equalizer(graph, tied, frozenset(in_integers), frozenset({*moving, *CLIPS})).actions(layer, by)
        except Blocked:
            continue
        with torch.no_grad():
            for act in actions:
                act()
        graph.refresh()
        done.append(name)
    return done


class _Equalizer:
    """Plans the changes for one layer; none is made before all of them are known to be possible."""

    def __init__(self, graph: Graph, tied: set[int], in_integers: frozenset[str], passing: frozenset[Any]) -> None:
        self._graph, self._tied, self._in_integers, self._passing = graph, tied, in_integers, passing

    def actions(self, layer: fx.Node, by: Tensor) -> list[Action]:
        """Returns the changes that scale a layer's input channels by `by`, as functions to call.

        Raises:
            Blocked: the input can't be scaled.
        """
        reader = scalable(self._graph, layer, self._tied)
        for pair in find_pairs(self._graph)[0]:
            own = next((found for found in pair.readers if found.layer.node is layer), None)
            if own is not None and not pair.bounds:
                least = by.reshape(-1, own.repeats).amin(1)
                readers = [self._read(found, least.repeat_interleave(found.repeats)) for found in pair.readers]
                return [self._made(pair.first.node, least), *readers]
        value: Any = layer.args[0]
        return [*self._scaled(value, layer, by), self._read(ReadingLayer(reader, 1), by)]

    def _scaled(self, value: fx.Node, reader: fx.Node, by: Tensor) -> list[Action]:
        """Returns the changes that multiply a value that `reader` reads by `by`."""
        source = value
        while len(source.users) == 1 and (source.target in UNIFORM or _is_rectifier(source)):
            source = source.args[0]  # type: ignore[assignment]
        alone = len(source.users) == 1
        if alone and source.target in LAYERS and source.name in self._in_integers:
            scalable(self._graph, source, self._tied)
            return [self._made(source, by)]
        if alone and source is value and source.target in JOINS and _joins_channels(source, reader):
            parts: Any = source.args[0]
            sizes = [int(part.meta["val"].shape[channel_axis(reader)]) for part in parts]
            cut = zip(parts, by.split(sizes), strict=True)
            return [act for part, own in cut for act in self._scaled(part, source, own)]
        if not self._is_float(value):
            raise Blocked(f"'{value.name}' is computed in integers")
        return [self._divided(value, reader, by)]

    def _is_float(self, value: fx.Node) -> bool:
        """Tells whether a value is computed in floating point, so that a scale can stand before it is rounded."""
        while value.target in self._passing and value.name not in self._in_integers:
            value = value.all_input_nodes[0]
        return value.name not in self._in_integers

    def _made(self, layer: fx.Node, by: Tensor) -> Action:
        weight, bias = node_arguments(layer)[1:3]

        def act() -> None:
            tensor = self._graph.tensor(str(weight.target))
            tensor.mul_(by.reshape(-1, *[1] * (tensor.dim() - 1)))
            if bias is not None:
                self._graph.tensor(str(bias.target)).mul_(by)

        return act

    def _read(self, reader: ReadingLayer, by: Tensor) -> Action:
        def act() -> None:
            weight = incoming(reader, {reader.layer.weight: self._graph.tensor(reader.layer.weight)})
            weight.div_(by.reshape(weight.shape[0], 1, weight.shape[2], 1))

        return act

    def _divided(self, value: fx.Node, reader: fx.Node, by: Tensor) -> Action:
        """Returns the change that divides a value by a constant. A product might be computed in integers, a division isn't."""
        layer = reader if reader.target in LAYERS else next(iter(reader.users))
        axis = channel_axis(layer)
        shape = (-1,) if axis == -1 else (-1, *[1] * (value.meta["val"].dim() - 2))

        def act() -> None:
            path, write = self._free_path(layer), Writer.before(reader, on_behalf_of=layer)
            self._graph.set_tensor(path, (1 / by).reshape(shape))
            reader.replace_input_with(value, write(aten.div.Tensor, value, write.fetch(path)))

        return act

    def _free_path(self, layer: fx.Node) -> str:
        weight: Any = layer.args[1]
        stem, taken = str(weight.target).rpartition(".")[0], self._graph.tensors()
        paths = (f"{stem}{RANGE}{number or ''}".lstrip(".") for number in range(len(taken) + 1))
        return next(path for path in paths if path not in taken)


def _is_rectifier(node: fx.Node) -> bool:
    """Tells whether an op is a clip at 0 alone, for which f(s·x) = s·f(x)."""
    bounds = CLIPS[node.target](node) if node.target in CLIPS else None
    return bounds is not None and all(bound == 0 or abs(bound) == float("inf") for bound in bounds)


def _joins_channels(join: fx.Node, reader: fx.Node) -> bool:
    """Tells whether a concatenation joins different values along the channels of the layer behind it."""
    if reader.target not in LAYERS:
        return False
    parts, axis = node_arguments(join)[:2]
    rank = join.meta["val"].dim()
    return len(set(parts)) == len(parts) and (axis or 0) % rank == channel_axis(reader) % rank
