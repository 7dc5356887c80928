"""Learns the rounding of one part of a network after the other, with the parts before it rounded already."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.evidence.pieces import can_cut, sample_count
from penjing.evidence.reader import flat_batches
from penjing.graph import Graph
from penjing.graph.ops import LAYERS, node_arguments
from penjing.quantization.grids import Laid
from penjing.quantization.rounding import Learned, Rounded, RoundingEntry, SampledSpan, Span, Walk
from penjing.quantization.weights.laying import LaidWeight, set_integers

MOST_SAMPLES = 256  # most calibration samples from which roundings are learned
PART_BYTES = 2**28  # bytes of a part's inputs and outputs after which no more samples are collected: 256 MiB


def learn_rounding(
    graph: Graph,
    reference: Graph,
    data: Any,
    weights: Sequence[LaidWeight],
    rounding: RoundingEntry,
    number: int | None,
    generator: torch.Generator,
) -> None:
    """Learns the integer of every weight on an integer grid, and the changes of biases, and writes them into the graph.

    A weight that several layers share is learned in the layer that reads it first.

    Args:
        graph: the quantised graph, rounded to nearest; its weights and biases are changed.
        reference: the float graph that `graph` was made from, whose nodes have the same names.
        data: calibration data.
        weights: the weights of `graph`, in order of execution.
        rounding: a learned rounding from `roundings`.
        number: the number behind the rounding's name; None where there is none.
        generator: draws the rounding's random numbers.
    """
    learned = {
        layers[0]: weight
        for weight in weights
        if isinstance(weight.laid, Laid) and (layers := [layer for layer in weight.layers if layer.target in LAYERS])
    }
    batches = list(_first(reference, flat_batches(reference, data), MOST_SAMPLES))
    assert rounding.spans is not None
    spans, weigh = rounding.spans(graph, list(learned)), rounding.importance
    axes = {span.output.name: span.axis for span in spans}
    importance = weigh(reference, batches, axes, generator) if weigh else {}
    quantized, floating = Walk(graph, batches), Walk(reference, batches)
    for span in spans:
        part = _part(graph, span, learned, quantized, floating, importance.get(span.output.name))
        found: Learned = rounding.function(part, generator, number)
        for layer, rounded, integers in zip(span.layers, part.weights, found.integers, strict=True):
            weight = learned[layer]
            set_integers(graph, weight, rounded.held(integers) + rounded.laid.zero_point[:, None])
            quantized.renew(weight.path)
        if part.bias is not None and found.shift is not None:
            with torch.no_grad():
                graph.tensor(part.bias).add_(found.shift)
            quantized.renew(part.bias)
        for walk in (quantized, floating):
            walk.advance(span.output.name)


def _part(
    graph: Graph,
    span: Span,
    learned: dict[fx.Node, LaidWeight],
    quantized: Walk,
    floating: Walk,
    importance: Tensor | None,
) -> SampledSpan:
    """Collects a part's samples, as many as memory allows."""
    inputs: list[tuple[Tensor, ...]] = []
    wanted: list[Tensor] = []
    size = 0
    names = [node.name for node in span.inputs]
    for given, (output,) in zip(quantized.values(names), floating.values([span.output.name]), strict=True):
        inputs.append(tuple(span.units(value) for value in given))
        wanted.append(span.units(output))
        size += sum(value.nbytes for value in (*inputs[-1], wanted[-1]))
        if size > PART_BYTES:
            break
    rounded = {node_arguments(layer)[1]: _rounded(graph, learned[layer]) for layer in span.layers}
    joined = [torch.cat(values) for values in zip(*inputs, strict=True)]
    return SampledSpan(span, rounded, quantized.known, joined, torch.cat(wanted), importance)


def _rounded(graph: Graph, weight: LaidWeight) -> Rounded:
    assert isinstance(weight.laid, Laid)
    parameter, mask, rows = graph.tensor(weight.path).detach(), graph.masks.get(weight.path), weight.choice.grain.rows
    kept = None if mask is None else rows(mask)
    return Rounded(rows(parameter) / weight.laid.scale[:, None], weight.laid, parameter.shape, kept)


def _first(graph: Graph, batches: Iterator[list[Tensor]], count: int) -> Iterator[list[Tensor]]:
    for batch in batches:
        yield [tensor[:count] for tensor in batch] if can_cut(graph, batch) else batch
        count -= sample_count(batch)
        if count <= 0:
            return
