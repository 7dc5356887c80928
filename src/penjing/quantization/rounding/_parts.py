"""A part of a network whose weights are rounded together: what goes in, what should come out, and what comes out."""

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

IMAGES = 4  # axes
AT_ONCE = 2**13  # positions of the output
ENOUGH = 2**16  # of them, to compare two roundings by


@dataclass(frozen=True)
class Span:
    """The nodes of a part.

    Attributes:
        nodes: in order of execution, without constants.
        inputs: what they read from outside.
        output: the one of them whose value the part is judged by.
        layers: those of them whose weights are rounded.
        axis: of the output's channels.
        rows: all axes but that are alike, so they are joined to one.
    """

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    output: fx.Node
    layers: tuple[fx.Node, ...]
    axis: int = 1
    rows: bool = False

    @property
    def is_layer(self) -> bool:
        """Whether it is one layer, with at most clips behind: each channel of the output then has weights of its own."""
        behind = self.nodes[self.nodes.index(self.layers[0]) + 1 :]
        return len(self.layers) == 1 and all(node.target in CLIPS for node in behind)

    def units(self, value: Tensor) -> Tensor:
        """Returns a value of all samples with what can be chosen from on the first axis."""
        return value.flatten(0, -2) if self.rows else value


@dataclass(frozen=True)
class Rounded:
    """A weight that is to be rounded.

    Attributes:
        real: `(rows, weights)`, in steps of the grid, counted from its zero points.
        laid: the grid.
        shape: as the layer has it.
        kept: `(rows, weights)`, False where a mask keeps a weight at zero; None where there is no mask.
    """

    real: Tensor
    laid: Laid
    shape: torch.Size
    kept: Tensor | None = None

    def held(self, integers: Tensor) -> Tensor:
        """Returns what the grid and the mask make of integers, counted from the zero points, `(rows, weights)`."""
        zero = self.laid.zero_point[:, None]
        held = integers.clamp(self.laid.grid.low - zero, self.laid.grid.high - zero)
        return held if self.kept is None else held * self.kept

    def values(self, integers: Tensor) -> Tensor:
        """Returns the weights that integers stand for, in the layer's shape.

        Args:
            integers: `(rows, weights)`, counted from the zero points; see `held`.
        """
        return (self.held(integers) * self.laid.scale[:, None]).reshape(self.shape)


@dataclass(frozen=True)
class Learned:
    """What is learned of a part.

    Attributes:
        integers: `(rows, weights)` for each of its weights, counted from the zero points.
        shift: `(channels,)`, what is added to the bias; None where it stays.
    """

    integers: list[Tensor]
    shift: Tensor | None = None


class Part:
    """A span of a quantised graph with samples of the data.

    Attributes:
        span: its nodes.
        weights: of its layers.
        inputs: `(samples, …)` each, of the rounded network.
        wanted: `(samples, …)`, of the float network.
        count: how many samples can be chosen from.
        bias: the name of its one layer's bias; None where other ops stand in the part, or other layers read that bias.
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
        """Takes in the samples.

        Args:
            span: its nodes.
            weights: by the node whose value they are.
            known: values of the constants.
            inputs: of the span, of the quantised network; what can be chosen from on the first axis.
            wanted: what the float network gives.
            importance: of each channel's error, on average 1; None for all alike.
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
        """Returns the output for some samples, rounded inside as in the graph; gradients go straight through that.

        Args:
            weights: in their layers' shapes.
            chosen: indices of samples.
            shift: `(channels,)`, what is added to the bias.
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
        """Returns the squared difference to what is wanted, summed over the channels, on average over all else."""
        return self.distance(self.output(weights, chosen, shift), _chosen(self.wanted, chosen))

    def distance(self, given: Tensor, wanted: Tensor) -> Tensor:
        """Returns the same of any two outputs."""
        squares = (given - wanted).square()
        if self._importance is not None:
            shape = [1] * given.dim()
            shape[self.span.axis] = -1
            squares = squares * self._importance.reshape(shape)
        return squares.sum() / (given.numel() // given.shape[self.span.axis])

    @property
    def is_product(self) -> bool:
        """Whether it is one layer, its bias a constant, and nothing else."""
        bias = node_arguments(self.span.layers[0])[2]
        alone = len(self.span.layers) == 1 and self.span.nodes == self.span.layers
        return alone and (bias is None or bias in self._known)

    @property
    def products(self) -> Tensor:
        """What the products of inputs and weights should be, where it is that: without the bias, unless that moves along."""
        bias = node_arguments(self.span.layers[0])[2]
        if bias is None or self.bias is not None:
            return self.wanted
        shape = [1] * self.wanted.dim()
        shape[self.span.axis] = -1
        return self.wanted - self._known[bias].reshape(shape)

    @property
    def spread(self) -> Tensor:
        """`(channels,)`, the standard deviation of what is wanted."""
        return self._by_channel(self.wanted).std(1, correction=0)

    @property
    def positions(self) -> int:
        """How many vectors each sample has: of the output, or of an input that has more."""
        outputs = self.wanted[0].numel() // self.wanted.shape[self.span.axis]
        inputs = [value[0].numel() // value.shape[-1 if value.dim() != IMAGES else 1] for value in self.inputs]
        return max(1, outputs, *inputs)

    def compare(self, weights: Sequence[Tensor], shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compares with what is wanted on all samples, or on so many that more would tell nothing new.

        Returns:
            The mean squared difference of each channel, weighed by its importance, and the mean difference, `(channels,)`.
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
    """Returns the constant bias that the one layer of a span has for itself."""
    bias = node_arguments(span.layers[0])[2] if span.is_layer else None
    if not isinstance(bias, fx.Node) or bias.op != "get_attr":
        return None
    fetched = [node for node in bias.graph.nodes if node.op == "get_attr" and node.target == bias.target]
    return bias if sum(len(node.users) for node in fetched) == 1 else None


def channels_last(value: Tensor) -> Tensor:
    """Lays images out as convolutions compute them fastest, two to three times."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == IMAGES else value.contiguous()


def _chosen(value: Tensor, chosen: Tensor | slice) -> Tensor:
    if value.dim() != IMAGES:
        return value[chosen]
    return value.permute(0, 2, 3, 1)[chosen].permute(0, 3, 1, 2)  # indexing would lay them out anew
