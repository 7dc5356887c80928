"""A part of a network whose weights are rounded together: its inputs, its wanted output, and its output after rounding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph.clips import CLIPS
from penjing.graph.ops import node_arguments
from penjing.graph.taps import run_nodes
from penjing.quantization.grids import Laid
from penjing.quantization.rounding._simulated import with_gradients

IMAGES = 4  # axes of a batch of images, (batch, channels, height, width)
AT_ONCE = 2**13  # output positions that are computed at once: bounds memory
ENOUGH = 2**16  # output positions on which two roundings are compared: a mean square's standard error is then 0.6 %


@dataclass(frozen=True)
class Span:
    """The nodes of a part.

    Attributes:
        nodes: the part's nodes in order of execution, without constants.
        inputs: the values that these nodes read from outside.
        output: the node whose value is compared with the float network's.
        layers: the nodes whose weights are rounded.
        axis: the axis of the output's channels.
        rows: whether all other axes are alike, as a linear layer's are, so that they are flattened to one.
    """

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    output: fx.Node
    layers: tuple[fx.Node, ...]
    axis: int = 1
    rows: bool = False

    @property
    def is_layer(self) -> bool:
        """Whether the span is one layer, with at most clips behind: each output channel then has its own weights."""
        behind = self.nodes[self.nodes.index(self.layers[0]) + 1 :]
        return len(self.layers) == 1 and all(node.target in CLIPS for node in behind)

    def units(self, value: Tensor) -> Tensor:
        """Returns a value with the units that iterations draw from, samples or rows, on the first axis."""
        return value.flatten(0, -2) if self.rows else value


@dataclass(frozen=True)
class Rounded:
    """A weight that is to be rounded.

    Attributes:
        real: the float weight, `(rows, weights)`, in steps of the grid, counted from its zero points.
        laid: the grid.
        shape: the weight's shape in the layer.
        kept: `(rows, weights)`, False where a mask keeps a weight at zero; None where there is no mask.
    """

    real: Tensor
    laid: Laid
    shape: torch.Size
    kept: Tensor | None = None

    def held(self, integers: Tensor) -> Tensor:
        """Clamps integers, `(rows, weights)` counted from the zero points, to the grid, and sets masked ones to zero."""
        zero = self.laid.zero_point[:, None]
        held = integers.clamp(self.laid.grid.low - zero, self.laid.grid.high - zero)
        return held if self.kept is None else held * self.kept

    def values(self, integers: Tensor) -> Tensor:
        """Returns the weight that these integers stand for, in the layer's shape.

        Args:
            integers: `(rows, weights)`, counted from the zero points; see `held`.
        """
        return (self.held(integers) * self.laid.scale[:, None]).reshape(self.shape)


@dataclass(frozen=True)
class Learned:
    """The learned rounding of a part.

    Attributes:
        integers: `(rows, weights)` for each of the part's weights, counted from the zero points.
        shift: `(channels,)`, the change of the bias; None where the bias stays.
    """

    integers: list[Tensor]
    shift: Tensor | None = None


class SampledSpan:
    """A span of a quantised graph, with samples of its inputs and of its wanted output.

    Attributes:
        span: the nodes.
        weights: the weights of the span's layers.
        inputs: the span's inputs in the rounded network, `(samples, …)` each.
        wanted: the span's output in the float network, `(samples, …)`.
        count: the number of samples that iterations draw from.
        bias: the name of the bias if the part is one layer and nothing else reads its bias; else None.
    """

    def __init__(
        self,
        span: Span,
        weights: Mapping[fx.Node, Rounded],
        known: Mapping[fx.Node, Any],
        inputs: Sequence[Tensor],
        wanted: Tensor,
        importance: Tensor | None,
    ) -> None:
        """Makes a part of a span and its samples.

        Args:
            span: the nodes.
            weights: the weights of the span's layers, by the node whose value each one is.
            known: values of the constants.
            inputs: the span's inputs in the quantised network, with samples or rows on the first axis.
            wanted: the span's output in the float network.
            importance: `(channels,)`, the weight of each channel's squared error, on average 1; None weighs all alike.
        """
        self.weights = tuple(weights.values())
        self.count = len(wanted)
        self.span, self._importance = span, importance
        self.inputs, self.wanted = [channels_last(value) for value in inputs], channels_last(wanted)
        self._places = tuple(weights)
        sources = {source for node in span.nodes for source in node.all_input_nodes}
        self._known = {node: known[node] for node in sources if node in known}
        self._counts = [node for node in sources if isinstance(node.meta.get("val"), torch.SymInt)]
        self._bias = _own_bias(span)
        self.bias = None if self._bias is None else str(self._bias.target)

    def output(self, weights: Sequence[Tensor], chosen: Tensor | slice, shift: Tensor | None = None) -> Tensor:
        """Returns the output for some samples, with activations rounded as in the graph; gradients pass straight through.

        Args:
            weights: the layers' weights, in the layers' shapes.
            chosen: indices of samples.
            shift: `(channels,)`, the change of the bias.
        """
        inputs = [_chosen(value, chosen) for value in self.inputs]
        env: dict[fx.Node, Any] = dict(self._known)
        env.update(zip(self.span.inputs, inputs, strict=True))
        env.update(zip(self._places, weights, strict=True))
        env.update(dict.fromkeys(self._counts, len(inputs[0])))
        if self._bias is not None and shift is not None:
            env[self._bias] = env[self._bias] + shift
        run_nodes(self.span.output.graph.owning_module, self.span.nodes, env, with_gradients)
        return env[self.span.output]  # type: ignore[no-any-return]

    def error(self, weights: Sequence[Tensor], chosen: Tensor | slice, shift: Tensor | None = None) -> Tensor:
        """Returns the squared error of the output, summed over channels and averaged over all other axes."""
        return self.distance(self.output(weights, chosen, shift), _chosen(self.wanted, chosen))

    def distance(self, given: Tensor, wanted: Tensor) -> Tensor:
        """Returns the squared difference of two outputs, summed over channels and averaged over all other axes."""
        squares = (given - wanted).square()
        if self._importance is not None:
            shape = [1] * given.dim()
            shape[self.span.axis] = -1
            squares = squares * self._importance.reshape(shape)
        return squares.sum() / (given.numel() // given.shape[self.span.axis])

    @property
    def is_product(self) -> bool:
        """Whether the part is a single layer without a clip, whose bias is a constant."""
        bias = node_arguments(self.span.layers[0])[2]
        alone = len(self.span.layers) == 1 and self.span.nodes == self.span.layers
        return alone and (bias is None or bias in self._known)

    @property
    def products(self) -> Tensor:
        """The wanted products of inputs and weights, if the part `is_product`; they include the bias only if it is learned."""
        bias = node_arguments(self.span.layers[0])[2]
        if bias is None or self.bias is not None:
            return self.wanted
        shape = [1] * self.wanted.dim()
        shape[self.span.axis] = -1
        return self.wanted - self._known[bias].reshape(shape)

    @property
    def spread(self) -> Tensor:
        """`(channels,)`, the standard deviation of the wanted output."""
        return self._by_channel(self.wanted).std(1, correction=0)

    @property
    def positions(self) -> int:
        """The number of channel vectors per sample, in the output or in the input that has most."""
        outputs = self.wanted[0].numel() // self.wanted.shape[self.span.axis]
        inputs = [value[0].numel() // value.shape[-1 if value.dim() != IMAGES else 1] for value in self.inputs]
        return max(1, outputs, *inputs)

    def compare(self, weights: Sequence[Tensor], shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compares the output with the wanted one, on at most about `ENOUGH` positions.

        Returns:
            The mean squared error of each channel, weighed by its importance, and its mean error, `(channels,)` each.
        """
        size, count = max(1, AT_ONCE // self.positions), min(self.count, -(-ENOUGH // self.positions))
        squares, differences, seen = torch.zeros(()), torch.zeros(()), 0
        with torch.no_grad():
            for start in range(0, count, size):
                chosen = slice(start, min(start + size, count))
                found = self._by_channel(self.output(weights, chosen, shift) - _chosen(self.wanted, chosen))
                squares, differences = squares + found.square().sum(1), differences + found.sum(1)
                seen += found.shape[1]
        weighed = squares if self._importance is None else squares * self._importance
        return weighed / seen, differences / seen

    def _by_channel(self, value: Tensor) -> Tensor:
        return value.movedim(self.span.axis, 0).flatten(1)


def _own_bias(span: Span) -> fx.Node | None:
    """Returns the bias of a span that is one layer, if the bias is a constant that nothing else reads; else None."""
    bias = node_arguments(span.layers[0])[2] if span.is_layer else None
    if not isinstance(bias, fx.Node) or bias.op != "get_attr":
        return None
    fetched = [node for node in bias.graph.nodes if node.op == "get_attr" and node.target == bias.target]
    return bias if sum(len(node.users) for node in fetched) == 1 else None


def channels_last(value: Tensor) -> Tensor:
    """Lays images out channels last, with which convolutions run two to three times as fast."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == IMAGES else value.contiguous()


def _chosen(value: Tensor, chosen: Tensor | slice) -> Tensor:
    if value.dim() != IMAGES:
        return value[chosen]
    return value.permute(0, 2, 3, 1)[chosen].permute(0, 3, 1, 2)  # direct indexing would lose the layout
