"""What a layer reads and what it should give, at random positions of the calibration data.

A convolution at one position is a matrix product with the patch of the input below it, so a layer of any kind becomes
`output = patch · weightᵀ`, with as many rows as memory allows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from penjing.graph import Graph
from penjing.graph.normalize import node_arguments
from penjing.quantize._calibrate import flat_batches
from penjing.quantize._running import Running, constants

aten = torch.ops.aten
MOST_IMAGES = 128  # samples of the calibration data; more add little once there are some positions of each
MOST_ROWS = 4096
PATCH_NUMBERS = 2**24  # of one layer, 64 MB
TARGET_NUMBERS = 2**26  # of all layers, 256 MB


@dataclass(frozen=True)
class Samples:
    """One layer's.

    Attributes:
        patches: `(groups, rows, weights per output)`, of the quantised network.
        outputs: `(groups, rows, outputs per group)`, what the float layer gives at the same positions, bias included.
    """

    patches: Tensor
    outputs: Tensor


class Collector:
    """Collects samples of one layer after the other, with the layers before it as they are by then."""

    def __init__(
        self, graph: Graph, reference: Graph, data: Any, layers: Sequence[fx.Node], generator: torch.Generator
    ) -> None:
        """Runs the float graph once for the outputs of all layers.

        Args:
            graph: quantised.
            reference: the float graph that it was made of, its nodes named alike.
            data: calibration data.
            layers: of `graph`.
            generator: of the positions.
        """
        self._graph = graph
        self._batches = list(_first(flat_batches(reference, data), MOST_IMAGES))
        images = sum(len(batch[0]) for batch in self._batches)
        self._positions: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
        self._outputs: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
        self._sizes: dict[str, tuple[int, ...]] = {}
        chosen = [node for node in reference.program.graph.nodes if node.name in self._positions]
        outputs = sum(len(node_arguments(node)[1].meta["val"]) for node in chosen)
        rows = {node.name: min(_rows(node), TARGET_NUMBERS // outputs) for node in chosen}

        def take(node: fx.Node, output: Tensor) -> None:
            spread = _positions_last(node, output)
            count = spread[0, 0].numel()
            each = min(count, math.ceil(rows[node.name] / images))
            places = torch.rand(len(spread), count, generator=generator).argsort(1)[:, :each].to(output.device)
            self._positions[node.name].append(places)
            self._outputs[node.name].append(spread.gather(2, places[:, None].expand(-1, spread.shape[1], -1)))
            self._sizes[node.name] = tuple(output.shape[2:])

        with torch.no_grad():
            known = constants(reference.program)
            for batch in self._batches:
                _Watching(reference.program, dict.fromkeys(self._positions, take)).run(*batch, initial_env=dict(known))

    def collect(self, layer: fx.Node) -> Samples:
        """Runs the quantised graph up to a layer and returns its samples."""
        found: list[Tensor] = []
        source: Any = layer.args[0]
        places = iter(self._positions[layer.name])

        def take(node: fx.Node, value: Tensor) -> None:
            found.append(_patches(layer, value, next(places), self._sizes[layer.name]))
            raise _Enough

        with torch.no_grad():
            known = constants(self._graph.program)
            for batch in self._batches:
                try:
                    _Watching(self._graph.program, {source.name: take}).run(*batch, initial_env=dict(known))
                except _Enough:
                    continue
            patches = torch.cat(found, 1)
            outputs = torch.cat([o.transpose(1, 2).flatten(0, 1) for o in self._outputs.pop(layer.name)])
        groups = len(patches)
        return Samples(patches, outputs.unflatten(1, (groups, -1)).transpose(0, 1).contiguous())


class _Enough(Exception):
    """What lies behind the layer needn't run."""


class _Watching(Running):
    """Shows the values of some nodes to a function each."""

    def __init__(self, program: fx.GraphModule, watched: Mapping[str, Any]) -> None:
        super().__init__(program)
        self._watched = watched

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._watched:
            self._watched[n.name](n, value)
        return value


def _first(batches: Iterator[list[Tensor]], count: int) -> Iterator[list[Tensor]]:
    for batch in batches:
        yield [tensor[:count] for tensor in batch]
        count -= len(batch[0])
        if count <= 0:
            return


def _rows(layer: fx.Node) -> int:
    """Returns how many rows of a layer fit into memory."""
    arguments = node_arguments(layer)
    groups = 1 if layer.target is aten.linear.default else arguments[6]
    return max(1, min(MOST_ROWS, PATCH_NUMBERS // (arguments[1].meta["val"][0].numel() * groups)))


def _positions_last(layer: fx.Node, value: Tensor) -> Tensor:
    """Returns an output, or a linear layer's input, as `(samples, channels, positions)`."""
    if layer.target is aten.linear.default:
        return value.reshape(len(value), -1, value.shape[-1]).transpose(1, 2)
    return value.flatten(2)


def _patches(layer: fx.Node, value: Tensor, places: Tensor, size: Sequence[int]) -> Tensor:
    """Returns what a layer multiplies its weights with at some positions, `(groups, rows, weights per output)`.

    Args:
        layer: a convolution or linear layer.
        value: its input.
        places: `(samples, rows)`, flat positions of the output.
        size: of the output's spatial axes.
    """
    if layer.target is aten.linear.default:
        spread = _positions_last(layer, value).transpose(1, 2)
        return spread.gather(1, places[:, :, None].expand(-1, -1, spread.shape[2])).flatten(0, 1)[None]
    _, weight, _, stride, padding, dilation, groups = node_arguments(layer)
    kernel = weight.meta["val"].shape[2:]
    stride, dilation = (_each(given, len(kernel)) for given in (stride, dilation))
    value = F.pad(value, _margins(padding, kernel, dilation))
    index: list[Any] = [torch.arange(len(value), device=value.device).repeat_interleave(places.shape[1])]
    index[0] = index[0].reshape(-1, *[1] * len(kernel))
    index.append(slice(None))
    for axis, place in enumerate(torch.unravel_index(places.reshape(-1), tuple(size))):
        offsets = torch.arange(kernel[axis], device=value.device) * dilation[axis]
        shape = [-1 if other == axis else 1 for other in range(len(kernel))]
        index.append(place.reshape(-1, *[1] * len(kernel)) * stride[axis] + offsets.reshape(1, *shape))
    cut = value[tuple(index)].movedim(-1, 1)  # the axis that was sliced comes last
    return cut.unflatten(1, (groups, -1)).flatten(2).transpose(0, 1)


def _each(given: Any, count: int) -> list[int]:
    values = list(given) if isinstance(given, list | tuple) else [given]
    return values * count if len(values) == 1 else values


def _margins(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Returns what `F.pad` adds before and behind each spatial axis, the last one first."""
    pairs = []
    if isinstance(padding, str):
        for size, step in zip(kernel, dilation, strict=True):
            total = step * (size - 1) if padding == "same" else 0
            pairs.append((total // 2, total - total // 2))
    else:
        pairs = [(margin, margin) for margin in _each(padding, len(kernel))]
    return [margin for pair in reversed(pairs) for margin in pair]
