"""Runs a quantised graph beside the float graph that it was made of, one batch at a time, layer by layer.

In each batch the float graph runs first and leaves a summary of every layer's output, a few numbers per channel. Then
the quantised graph runs, and the layers behind a corrected layer read its corrected output. So each layer is corrected
with corrected layers before it, in one pass over the data, with memory for one batch.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.evidence.pieces import can_cut, sample_count
from penjing.graph import Graph
from penjing.graph.ops import LAYERS, node_arguments
from penjing.graph.taps import Execution, constant_values
from penjing.quantization.calibration.noise import SAMPLES as NOISE_SAMPLES
from penjing.quantization.calibration.noise import Noise
from penjing.quantization.calibration.running import in_floats

aten = torch.ops.aten


@dataclass(frozen=True)
class RoundedLayer:
    """A convolution or linear layer with few-bit weights.

    Attributes:
        node: the layer's node in the quantised graph.
        weight: path of the parameter from which the rounded weight is computed.
        bias: path of the bias; None if the layer has no bias.
    """

    node: fx.Node
    weight: str
    bias: str | None

    @property
    def axis(self) -> int:
        """The axis of the output's channels."""
        return -1 if self.node.target is aten.linear.default else 1

    def along(self, values: Tensor, output: Tensor) -> Tensor:
        """Expands `(channels,)` to the shape of an output, in the output's dtype."""
        shape = [1] * output.dim()
        shape[self.axis] = -1
        return values.to(output.dtype).reshape(shape).expand_as(output)

    def mean(self, output: Tensor) -> Tensor:
        """Returns the mean of each channel of an output, `(channels,)` float64."""
        return output.mean([axis for axis in range(output.dim()) if axis != self.axis % output.dim()]).double()

    @property
    def place(self) -> str:
        """The module path, or a name of the node, where the user finds the layer."""
        return self.weight.rpartition(".")[0] or str(self.node.meta.get("module") or self.node.name)


def quantized_layers(graph: Graph) -> list[RoundedLayer]:
    """Returns the layers whose weight is computed from stored integers or rounded, in order of execution.

    Raises:
        PenjingError: there is no such layer, or a layer's bias can't be changed.
    """
    found = [RoundedLayer(node, weight, _path(bias, node)) for node, weight, bias in _rounded(graph)]
    if not found:
        raise PenjingError(f"{graph.name} has no layer with few-bit weights, so there is nothing to correct.")
    return found


def free_layers(graph: Graph) -> list[RoundedLayer]:
    """Returns the quantised layers whose weight and bias nothing else reads, so that each can be corrected on its own."""
    tied = {id(graph.tensor(path)) for path in graph.ties()}
    readers = Counter(
        str(node.target) for node in graph.program.graph.nodes if node.op == "get_attr" for _ in node.users
    )

    def is_own(path: str) -> bool:
        return readers[path] == 1 and id(graph.tensor(path)) not in tied

    return [
        RoundedLayer(node, weight, None if bias is None else str(bias.target))
        for node, weight, bias in _rounded(graph)
        if is_own(weight)
        and len(node_arguments(node)[1].users) == 1
        and (bias is None or (bias.op == "get_attr" and is_own(str(bias.target))))
    ]


def _rounded(graph: Graph) -> Iterator[tuple[fx.Node, str, fx.Node | None]]:
    """Yields each layer with few-bit weights, the path of the stored weight, and the bias."""
    for node in graph.program.graph.nodes:
        if node.target in LAYERS:
            weight, bias = node_arguments(node)[1:3]
            source = _stored(weight)
            if source is not None and source is not weight:
                yield node, str(source.target), bias


def _stored(weight: fx.Node) -> fx.Node | None:
    """Returns the tensor from which a weight is computed by the first argument of each op; None for activations."""
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
    batches: Iterable[list[Tensor]],
    layers: Sequence[RoundedLayer],
    remember: Callable[[RoundedLayer, Tensor], Any],
    correct: Callable[[RoundedLayer, Tensor, Any], Tensor],
    noise: Noise | None = None,
) -> None:
    """Runs both graphs on all batches.

    Args:
        graph: the quantised graph, in evaluation mode.
        reference: the float graph, whose nodes have the same names.
        batches: batches of flat inputs.
        layers: the layers of `graph` to correct.
        remember: summarises a layer's output in the float graph.
        correct: takes a layer's output in the quantised graph and the summary of its float output on the same batch,
            and returns the output that the next layers read.
        noise: takes in every layer's outputs in both graphs; None measures no noise.

    Raises:
        PenjingError: the quantised graph wasn't made from this float graph.
    """
    by_name = {layer.node.name: layer for layer in layers}
    names = {node.name for node in reference.program.graph.nodes if node.target in LAYERS}
    if missing := sorted(by_name.keys() - names):
        raise PenjingError(
            f"The float graph has no layer '{missing[0]}': it isn't what the quantised graph was made of."
        )
    with torch.no_grad():
        known = constant_values(graph.program)
        for inputs in batches:
            remembered = _run_float(reference, inputs, by_name, remember, noise)
            if noise is not None:
                noise.has_wanted(sample_count(inputs))
            _run_corrected(graph, inputs, known, by_name, remembered, correct, noise)
            if noise is not None:
                noise.has_got(sample_count(inputs))


def look_at_noise(graph: Graph, batches: Iterable[list[Tensor]], noise: Noise, reference: Graph) -> None:
    """Measures every layer's noise: gives `noise` the outputs of both graphs on the first few samples.

    Args:
        graph: the quantised graph, in evaluation mode.
        batches: batches of flat inputs, of which the first are used.
        noise: takes in the outputs.
        reference: the float graph.
    """
    left = NOISE_SAMPLES
    with torch.no_grad():
        known = constant_values(graph.program)
        for batch in batches:
            if left <= 0:
                break
            some = [tensor[:left] for tensor in batch] if can_cut(graph, batch) else batch
            left -= sample_count(some)
            _run_float(reference, some, {}, lambda layer, output: None, noise)
            noise.has_wanted(sample_count(some))
            _run_corrected(graph, some, known, {}, {}, lambda layer, output, _: output, noise)
            noise.has_got(sample_count(some))


def _run_float(
    reference: Graph,
    inputs: Sequence[Tensor],
    layers: Mapping[str, RoundedLayer],
    remember: Callable[[RoundedLayer, Tensor], Any],
    noise: Noise | None,
) -> dict[str, Any]:
    """Runs the float graph; returns the summary of each layer's output by the layer's name."""
    remembered: dict[str, Any] = {}

    def step(execution: Execution, node: fx.Node) -> Any:
        value = in_floats(execution, node)
        if node.name in layers:
            remembered[node.name] = remember(layers[node.name], value)
        if noise is not None:
            noise.want(node, value)
        return value

    Execution(reference.program, step).run(*inputs)
    return remembered


def _run_corrected(
    graph: Graph,
    inputs: Sequence[Tensor],
    known: Mapping[fx.Node, Any],
    layers: Mapping[str, RoundedLayer],
    remembered: Mapping[str, Any],
    correct: Callable[[RoundedLayer, Tensor, Any], Tensor],
    noise: Noise | None,
) -> None:
    """Runs the quantised graph with each layer's output replaced by its corrected output."""

    def step(execution: Execution, node: fx.Node) -> Any:
        value = in_floats(execution, node)
        if node.name in layers:
            value = correct(layers[node.name], value, remembered[node.name])
        if noise is not None:
            noise.get(node, value)
        return value

    Execution(graph.program, step).run(*inputs, initial_env=dict(known))
