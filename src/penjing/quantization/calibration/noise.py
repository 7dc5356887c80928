"""Measures the noise that rounding makes in each layer, relative to the variation of the layer's output about its mean.

A tensor whose parts have very different ranges has one scale, so its small parts round to zero. The next layer then
loses everything that it computes from these parts, although every value was rounded as asked. A mean tells nothing
about a single sample, so the noise is compared with the signal less its mean.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.capabilities import Placement
from penjing.graph import Graph
from penjing.graph.ops import LAYERS
from penjing.graph.straight_through import ops
from penjing.graph.taps import all_values, constant_values

aten = torch.ops.aten
SAMPLES = 8  # samples on which noise is measured: enough to tell it from the signal, at 1 to 2 % of quantisation's time
CONSTANT = 1e-8  # share of a signal's power: a smaller variation is float32's own rounding
PAIRS = (ops.quantize_per_tensor.default, ops.quantize_per_channel.default, ops.quantize_per_channel_group.default)


def channel_axis(layer: fx.Node) -> int:
    """Returns the axis of a layer's channels, which is the same in its input and in its output."""
    return -1 if layer.target is aten.linear.default else 1


@dataclass
class Power:
    """Sums of squares over the samples seen so far.

    Attributes:
        error: sum of squares of the rounded output less the float output.
        variation: sum of squares of the float output less each channel's mean.
        signal: sum of squares of the float output.
    """

    error: float = 0.0
    variation: float = 0.0
    signal: float = 0.0

    def add(self, wanted: Tensor, error: Tensor, axis: int) -> None:
        """Adds a layer's output and its error to the sums; one value per channel can't vary, so it adds nothing."""
        channels = wanted.movedim(axis, -1).flatten(0, -2)
        count = len(channels)
        if count < 2:
            return
        unbiased = count / (count - 1)  # n / (n − 1), since the mean is estimated from the same values
        self.error += float(error.square().sum())
        self.variation += float((channels - channels.mean(0)).square().sum()) * unbiased
        self.signal += float(channels.square().sum())

    @property
    def noise(self) -> float:
        """The error's power over the variation's power; 0 where the output doesn't vary."""
        return self.error / self.variation if self.variation > CONSTANT * self.signal else 0.0


class Noise:
    """The noise of each layer in a quantised graph, including that of all layers before it, measured as both graphs run.

    Attributes:
        of_layers: sums of squares by the layer's name.
    """

    def __init__(self) -> None:
        self.of_layers: dict[str, Power] = {}
        self._wanted: dict[str, list[Tensor]] = {}
        self._left_to_want = self._left_to_get = SAMPLES

    @property
    def is_measured(self) -> bool:
        """Whether any samples went through both graphs."""
        return self._left_to_get < SAMPLES

    @property
    def worst(self) -> float:
        """The largest noise of any layer; 0 where none was measured."""
        return max((power.noise for power in self.of_layers.values()), default=0.0)

    def want(self, node: fx.Node, output: Any) -> None:
        """Keeps a layer's float output for the first samples; ignores nodes that aren't layers."""
        if self._left_to_want > 0 and node.target in LAYERS:
            self._wanted.setdefault(node.name, []).append(output[: self._left_to_want].detach().clone())

    def get(self, node: fx.Node, output: Any) -> None:
        """Compares a quantised layer's output with the float output that `want` kept; samples must come in the same order."""
        if waiting := self._wanted.get(node.name):
            wanted = waiting.pop(0)
            power = self.of_layers.setdefault(node.name, Power())
            power.add(wanted, output[: len(wanted)] - wanted, channel_axis(node))

    def has_wanted(self, samples: int) -> None:
        """Counts the samples of a batch that went through the float graph."""
        self._left_to_want = max(0, self._left_to_want - samples)

    def has_got(self, samples: int) -> None:
        """Counts the samples of a batch that went through the quantised graph."""
        self._left_to_get = max(0, self._left_to_get - samples)


@dataclass(frozen=True)
class Own:
    """The noise that a layer's own roundings make when all layers before it compute in floating point.

    Attributes:
        inputs: noise of rounding the layer's input.
        weights: noise of rounding the layer's weights; 0 where only the rounded weights are stored.
    """

    inputs: float
    weights: float


def own_noise(
    small: Graph, reference: Graph, batches: Iterable[Sequence[Tensor]], placement: Placement
) -> dict[str, Own]:
    """Measures the noise of each layer's own roundings alone.

    Args:
        small: the quantised graph.
        reference: the float graph that `small` was made from; nodes have the same names in both.
        batches: batches of flat inputs.
        placement: which ops pass integers on.

    Returns:
        The noise by the layer's name.
    """
    found = {name: (Power(), Power()) for name, _ in _rounded_layers(small)}
    known, floats = constant_values(small.program), {node.name: node for node in reference.program.graph.nodes}
    with torch.no_grad():
        for inputs in batches:
            values = float_values(reference, inputs)
            for name, layer in _rounded_layers(small):
                given: Any = floats[name].args[0]
                _add(found[name], layer, values[given.name], values, known, placement)
    return {name: Own(inputs.noise, weights.noise) for name, (inputs, weights) in found.items()}


def _add(
    powers: tuple[Power, Power],
    layer: fx.Node,
    x: Tensor,
    values: Mapping[str, Any],
    known: Mapping[fx.Node, Any],
    placement: Placement,
) -> None:
    axis = channel_axis(layer)
    rounded, weight = layer.args[1], known[layer.args[1]]  # type: ignore[index]
    real = known.get(stored, weight) if (stored := _real_weight(rounded)) is not None else weight
    real = real.reshape(weight.shape)  # groups are rounded as separate rows
    wanted = compute(layer, x, real)
    powers[0].add(wanted, compute(layer, read(layer.args[0], values, placement), real) - wanted, axis)
    powers[1].add(wanted, compute(layer, x, weight) - wanted, axis)


def _rounded_layers(small: Graph) -> Iterator[tuple[str, fx.Node]]:
    """Yields the name and the node of each layer with few-bit weights."""
    for node in small.program.graph.nodes:
        if node.target in LAYERS and isinstance(node.args[1], fx.Node) and node.args[1].op == "call_function":
            yield node.name, node


def float_values(reference: Graph, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """Returns the values of all nodes of the float graph by node name."""
    return {node.name: value for node, value in all_values(reference.program, inputs).items()}


def read(node: Any, values: Mapping[str, Any], placement: Placement) -> Any:
    """Returns a node's value in the quantised graph, from the float graph's values and the roundings right before it."""
    moved = node.target in placement.same and any(source.name not in values for source in _sources(node, placement))
    if node.name in values and not moved:
        return values[node.name]
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: read(source, values, placement))
    return node.target(*args, **kwargs)


def _sources(node: fx.Node, placement: Placement) -> Iterator[fx.Node]:
    """Yields the inputs of a node, and those of the ops before it that pass integers on unchanged."""
    for source in node.all_input_nodes:
        yield source
        if source.target in placement.same:
            yield from _sources(source, placement)


def _real_weight(rounded: Any) -> fx.Node | None:
    """Returns the float weight that a quantise/dequantise pair rounds; None where integers are stored instead."""
    node = rounded
    while node.op == "call_function" and isinstance(node.args[0], fx.Node):
        if node.target in PAIRS:
            return node.args[0]  # type: ignore[no-any-return]
        node = node.args[0]
    return None


def compute(layer: fx.Node, x: Tensor, weight: Tensor) -> Tensor:
    """Computes a layer without its bias, since the bias isn't rounded."""
    arguments, keywords = list(layer.args), dict(layer.kwargs)
    arguments[:2] = [x, weight]
    if len(arguments) > 2:
        arguments[2] = None
    keywords.pop("bias", None)
    return layer.target(*arguments, **keywords)  # type: ignore[operator, no-any-return]
