"""How much noise rounding makes in each layer, compared with what varies in its output: with the signal less its mean.

A value that holds parts of very different ranges has one scale, and its small parts round to nothing. What the layer behind it
computes from them is then gone, though every value was rounded as asked. The mean says nothing about a sample, so the noise is
compared with what is left without it.
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
SAMPLES = 8  # on which the layers' noise is measured: enough to tell it from the signal, in 1 to 2 % of the time
CONSTANT = 1e-8  # share of a signal's power below which its variation is that of float32's own rounding
PAIRS = (ops.quantize_per_tensor.default, ops.quantize_per_channel.default, ops.quantize_per_channel_group.default)


def channel_axis(layer: fx.Node) -> int:
    """Returns where a layer's channels are, in its input and its output alike."""
    return -1 if layer.target is aten.linear.default else 1


@dataclass
class Power:
    """Sums of squares over some samples.

    Attributes:
        error: of what rounding changed.
        variation: of the signal less each channel's mean.
        signal: of the whole signal.
    """

    error: float = 0.0
    variation: float = 0.0
    signal: float = 0.0

    def add(self, wanted: Tensor, error: Tensor, axis: int) -> None:
        """Takes in a layer's output and its error; nothing where there is one value per channel, which can't vary."""
        channels = wanted.movedim(axis, -1).flatten(0, -2)
        count = len(channels)
        if count < 2:
            return
        unbiased = count / (count - 1)  # the mean is that of these values
        self.error += float(error.square().sum())
        self.variation += float((channels - channels.mean(0)).square().sum()) * unbiased
        self.signal += float(channels.square().sum())

    @property
    def noise(self) -> float:
        """The error's power over that of what varies; 0 where nothing varies."""
        return self.error / self.variation if self.variation > CONSTANT * self.signal else 0.0


class Noise:
    """The noise of every layer in a quantised graph, with that of all layers before it, as graphs run side by side.

    Attributes:
        of_layers: by the layer's name.
    """

    def __init__(self) -> None:
        self.of_layers: dict[str, Power] = {}
        self._wanted: dict[str, list[Tensor]] = {}
        self._left_to_want = self._left_to_get = SAMPLES

    @property
    def is_measured(self) -> bool:
        """Whether samples went through both graphs."""
        return self._left_to_get < SAMPLES

    @property
    def worst(self) -> float:
        """The largest noise of a layer."""
        return max((power.noise for power in self.of_layers.values()), default=0.0)

    def want(self, node: fx.Node, output: Any) -> None:
        """Remembers what a node gives in floating point on the first samples, if it is a layer."""
        if self._left_to_want > 0 and node.target in LAYERS:
            self._wanted.setdefault(node.name, []).append(output[: self._left_to_want].detach().clone())

    def get(self, node: fx.Node, output: Any) -> None:
        """Compares it with what the node of that name gives in the quantised graph on the same samples, in the same order."""
        if waiting := self._wanted.get(node.name):
            wanted = waiting.pop(0)
            power = self.of_layers.setdefault(node.name, Power())
            power.add(wanted, output[: len(wanted)] - wanted, channel_axis(node))

    def has_wanted(self, samples: int) -> None:
        """Is told that a batch of so many samples went through the float graph."""
        self._left_to_want = max(0, self._left_to_want - samples)

    def has_got(self, samples: int) -> None:
        """Is told that a batch of so many samples went through the quantised graph."""
        self._left_to_get = max(0, self._left_to_get - samples)


@dataclass(frozen=True)
class Own:
    """The noise that a layer's own roundings make, in floating point up to there.

    Attributes:
        inputs: of rounding what it reads.
        weights: of rounding its weights; 0 where they are on a grid without remainders.
    """

    inputs: float
    weights: float


def own_noise(
    small: Graph, reference: Graph, batches: Iterable[Sequence[Tensor]], placement: Placement
) -> dict[str, Own]:
    """Measures the noise of each layer's own roundings alone.

    Args:
        small: quantised.
        reference: the float graph that it was made of, its nodes named alike.
        batches: of flat inputs.
        placement: which ops pass integers on.

    Returns:
        By the layer's name.
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
    real = real.reshape(weight.shape)  # groups are rounded as rows of their own
    wanted = compute(layer, x, real)
    powers[0].add(wanted, compute(layer, read(layer.args[0], values, placement), real) - wanted, axis)
    powers[1].add(wanted, compute(layer, x, weight) - wanted, axis)


def _rounded_layers(small: Graph) -> Iterator[tuple[str, fx.Node]]:
    """Yields the layers with few-bit weights whose input is a tensor that the float graph has, too."""
    for node in small.program.graph.nodes:
        if node.target in LAYERS and isinstance(node.args[1], fx.Node) and node.args[1].op == "call_function":
            yield node.name, node


def float_values(reference: Graph, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """Returns every value of the float graph by name."""
    return {node.name: value for node, value in all_values(reference.program, inputs).items()}


def read(node: Any, values: Mapping[str, Any], placement: Placement) -> Any:
    """Returns a value of the quantised graph, made of the float graph's values and the roundings right before it."""
    moved = node.target in placement.same and any(source.name not in values for source in _sources(node, placement))
    if node.name in values and not moved:
        return values[node.name]
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: read(source, values, placement))
    return node.target(*args, **kwargs)


def _sources(node: fx.Node, placement: Placement) -> Iterator[fx.Node]:
    """Yields what ops that pass integers on, one behind the other, read."""
    for source in node.all_input_nodes:
        yield source
        if source.target in placement.same:
            yield from _sources(source, placement)


def _real_weight(rounded: Any) -> fx.Node | None:
    """Returns the float weight that a pair rounds; None where codes are stored in its place."""
    node = rounded
    while node.op == "call_function" and isinstance(node.args[0], fx.Node):
        if node.target in PAIRS:
            return node.args[0]  # type: ignore[no-any-return]
        node = node.args[0]
    return None


def compute(layer: fx.Node, x: Tensor, weight: Tensor) -> Tensor:
    """Computes a layer without its bias, which rounding doesn't touch."""
    arguments, keywords = list(layer.args), dict(layer.kwargs)
    arguments[:2] = [x, weight]
    if len(arguments) > 2:
        arguments[2] = None
    keywords.pop("bias", None)
    return layer.target(*arguments, **keywords)  # type: ignore[operator, no-any-return]
