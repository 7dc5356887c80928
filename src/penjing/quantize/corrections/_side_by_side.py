"""Runs a quantised graph beside the float graph that it was made of, one batch at a time, layer by layer.

In each batch the float graph runs first and leaves a summary of every layer's output, a few numbers per channel. Then the
quantised graph runs, and what a correction makes of a layer's output goes on to the layers behind it. So each layer is
corrected with a network before it that is corrected already, in one pass over the data, with memory for one batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.normalize import node_arguments
from penjing.graph.ops import CONVOLUTIONS
from penjing.quantize._calibrate import flat_batches
from penjing.quantize._running import Running, constants

aten = torch.ops.aten
LAYERS = frozenset({*CONVOLUTIONS, aten.linear.default})


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer with few-bit weights.

    Attributes:
        node: in the quantised graph.
        weight: path of the parameter that the rounded weight comes from.
        bias: path of the bias, None without one.
    """

    node: fx.Node
    weight: str
    bias: str | None

    @property
    def axis(self) -> int:
        """Where the output's channels are."""
        return -1 if self.node.target is aten.linear.default else 1

    def along(self, values: Tensor, output: Tensor) -> Tensor:
        """Spreads `(channels,)` over the shape of an output, in its type."""
        shape = [1] * output.dim()
        shape[self.axis] = -1
        return values.to(output.dtype).reshape(shape).expand_as(output)

    def mean(self, output: Tensor) -> Tensor:
        """Returns the mean of each channel of an output, `(channels,)` float64."""
        return output.mean([axis for axis in range(output.dim()) if axis != self.axis % output.dim()]).double()

    @property
    def place(self) -> str:
        """Where the user finds it."""
        return self.weight.rpartition(".")[0] or str(self.node.meta.get("module") or self.node.name)


def quantized_layers(graph: Graph) -> list[Layer]:
    """Returns the layers whose weight is computed from stored integers or rounded, in order of execution."""
    found = []
    for node in graph.program.graph.nodes:
        if node.target in LAYERS:
            weight, bias = node_arguments(node)[1:3]
            source = _stored(weight)
            if source is not None and source is not weight:
                found.append(Layer(node, str(source.target), _path(bias, node)))
    return found


def _stored(weight: fx.Node) -> fx.Node | None:
    """Returns the tensor that a weight is computed from: the first argument of each op on the way; None for activations."""
    while weight.op == "call_function" and isinstance(weight.args[0], fx.Node):
        weight = weight.args[0]
    return weight if weight.op == "get_attr" else None


def _path(bias: fx.Node | None, layer: fx.Node) -> str | None:
    if bias is None:
        return None
    if bias.op != "get_attr":
        where = layer.meta.get("module") or layer.name
        raise PenjingError(f"The bias of '{where}' is computed from activations, so it can't be corrected; exclude it.")
    return str(bias.target)


def side_by_side(
    graph: Graph,
    reference: Graph,
    data: Any,
    remember: Callable[[Layer, Tensor], Any],
    correct: Callable[[Layer, Tensor, Any], Tensor],
) -> None:
    """Runs both graphs on all calibration batches.

    Args:
        graph: quantised, in evaluation mode.
        reference: the float graph, its nodes named alike.
        data: as for `calibrate`.
        remember: summarises a layer's output in the float graph.
        correct: from a layer's output in the quantised graph and what was remembered of the float one on the same
            batch to the output that the next layers read.
    """
    layers = {layer.node.name: layer for layer in quantized_layers(graph)}
    if not layers:
        raise PenjingError(f"{graph.name} has no layer with few-bit weights, so there is nothing to correct.")
    names = {node.name for node in reference.program.graph.nodes if node.target in LAYERS}
    if missing := sorted(layers.keys() - names):
        raise PenjingError(
            f"The float graph has no layer '{missing[0]}': it isn't what the quantised graph was made of."
        )
    with torch.no_grad():
        known = constants(graph.program)
        for inputs in flat_batches(reference, data):
            recorder = _Recorder(reference.program, layers, remember)
            recorder.run(*inputs)
            corrected = _Corrected(graph.program, layers, recorder.remembered, correct)
            corrected.run(*inputs, initial_env=dict(known))


class _Recorder(fx.Interpreter):
    def __init__(
        self, program: fx.GraphModule, layers: Mapping[str, Layer], remember: Callable[[Layer, Tensor], Any]
    ) -> None:
        super().__init__(program)
        self._layers, self._remember = layers, remember
        self.remembered: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._layers:
            self.remembered[n.name] = self._remember(self._layers[n.name], value)
        return value


class _Corrected(Running):
    """Puts what the correction makes of a layer's output in its place."""

    def __init__(
        self,
        program: fx.GraphModule,
        layers: Mapping[str, Layer],
        remembered: Mapping[str, Any],
        correct: Callable[[Layer, Tensor, Any], Tensor],
    ) -> None:
        super().__init__(program)
        self._layers, self._remembered, self._correct = layers, remembered, correct

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._layers:
            return self._correct(self._layers[n.name], value, self._remembered[n.name])
        return value
