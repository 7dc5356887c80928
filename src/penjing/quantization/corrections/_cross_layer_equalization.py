"""Moves scales between layers, so that all channels of a weight have the same range."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence.observation import observe
from penjing.graph import Graph
from penjing.graph.ops import node_arguments
from penjing.quantization.calibration.running import in_floats
from penjing.quantization.corrections._bias import add_to_biases
from penjing.quantization.corrections._pairs import LayerAndReaders, ReadingLayer, find_pairs
from penjing.quantization.corrections._registry import corrections
from penjing.quantization.corrections._side_by_side import RoundedLayer

ROUNDS = 100
SETTLED = 1e-3  # logarithm of a scale's change: the rounds end when no scale changes by more
EQUAL = 1e-2  # relative difference below which ranges count as equal
HEADROOM = 1.25  # factor by which values outside of the calibration data may be larger before the clip cuts them


@corrections.register(
    source="Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.1, "
    "arXiv:1906.04721",
    needs={"data"},
    stage="float",
)
def cross_layer_equalization(graph: Graph, data: Any = None) -> tuple[str, ...]:
    """Scales the channels between two layers so that both weights have equal ranges there; the function stays the same.

    Let r₁ and r₂ be the ranges (largest magnitudes) of a channel's weights in a layer and in the layers that read its
    output. The channel's weights are divided by s = √(r₁ / r₂) in the first layer and multiplied by s in the readers,
    again and again until no scale changes. Pairs of layers are found by the ops between them: ReLU, pooling, flatten
    and others for which f(s·x) = s·f(x).

    A clip at a bound b other than 0, such as ReLU6, isn't such an op. The paper replaces the clip by a ReLU. Here the
    clip stays, and so does the network's function as far as the calibration data show: channels that reach the bound
    keep their scale, and the others are scaled up only so far that they stay below the bound, with some room. Without
    data such pairs are left out.

    Then high biases are absorbed (section 4.1.3): c, the least value of a channel that is always positive, moves from
    the first layer's bias into the biases of its readers. The paper takes c = max(0, β − 3γ) from the batch norm, below
    which few values of a normal distribution lie. Here c is the least value on the calibration data. A channel whose
    readers pad with zeros keeps its bias, since the zeros don't move with c.

    Args:
        graph: a float graph with folded batch norms; its weights and biases are changed.
        data: calibration data.

    Returns:
        The places of the layers that were changed.

    Raises:
        PenjingError: no two layers fit; the message says why.
    """
    pairs, reasons = find_pairs(graph)
    if data is None:
        reasons |= {pair.first.place: "its clip needs calibration data" for pair in pairs if pair.bounds}
        pairs = [pair for pair in pairs if not pair.bounds]
    if not pairs:
        why = "; ".join(f"'{place}': {reason}" for place, reason in list(reasons.items())[:5])
        raise PenjingError(
            f"cross_layer_equalization finds no two layers in {graph.name} whose channels could be scaled ({why}); leave "
            "it out."
        )
    seen = {id(pair): _ChannelExtremes(pair.first) for pair in pairs}
    if data is not None:
        observe(graph, data, {pair.first.node: seen[id(pair)] for pair in pairs}, compute=in_floats)
    weights = {path: graph.tensor(path).detach().double() for path in _tensors(pairs)}  # to float32 at the end, once
    scales = _equalize(pairs, seen, weights)
    with torch.no_grad():
        for path, weight in weights.items():
            graph.tensor(path).copy_(weight)
    absorbed = [
        _absorb(graph, pair, seen[id(pair)].low / scale, seen[id(pair)].high / scale)
        for pair, scale in zip(pairs, scales, strict=True)
        if data is not None
    ]
    graph.refresh()
    changed = [pair for pair, scale in zip(pairs, scales, strict=True) if float(scale.log().abs().max()) > EQUAL]
    if not changed and not any(absorbed):
        warnings.warn(
            f"cross_layer_equalization changes nothing in {graph.name}: the channels of its {len(pairs)} pairs of layers "
            "have equal ranges already, or reach their clips.",
            stacklevel=2,
        )
    layers = [layer for pair in changed for layer in (pair.first, *(reader.layer for reader in pair.readers))]
    return tuple(dict.fromkeys(layer.place for layer in layers))


def _tensors(pairs: Iterable[LayerAndReaders]) -> set[str]:
    layers = [layer for pair in pairs for layer in (pair.first, *(reader.layer for reader in pair.readers))]
    biases = {pair.first.bias for pair in pairs if pair.first.bias is not None}
    return {layer.weight for layer in layers} | biases


class _ChannelExtremes:
    """The smallest and the largest value of each channel of a layer's output."""

    def __init__(self, layer: RoundedLayer) -> None:
        self._layer = layer
        self.low = torch.tensor(torch.inf, dtype=torch.float64)
        self.high = -self.low

    def update(self, values: Tensor) -> None:
        if values.numel():
            channels = values.movedim(self._layer.axis, 0).flatten(1)
            self.low = self.low.minimum(channels.amin(1).double())
            self.high = self.high.maximum(channels.amax(1).double())


# Scales


def _equalize(
    pairs: list[LayerAndReaders], seen: dict[int, _ChannelExtremes], weights: dict[str, Tensor]
) -> list[Tensor]:
    """Equalises `weights` in place; returns, for each pair, the divisors of the first layer's channels, `(channels,)`."""
    totals = [torch.ones_like(weights[pair.first.weight].flatten(1)[:, 0]) for pair in pairs]
    limits = [_limits(pair, seen[id(pair)], total) for pair, total in zip(pairs, totals, strict=True)]
    for _ in range(ROUNDS):
        largest = 0.0
        for i, pair in enumerate(pairs):
            own = weights[pair.first.weight].flatten(1).abs().amax(1)
            read = torch.stack([incoming(reader, weights).abs().amax((1, 3)).flatten() for reader in pair.readers])
            read = read.reshape(len(pair.readers), len(own), -1).amax((0, 2))
            wanted = torch.where((own > 0) & (read > 0), (own / read).sqrt(), 1.0) * totals[i]
            step = torch.where(limits[i].isinf(), 1.0, wanted.maximum(limits[i])) / totals[i]
            totals[i] = totals[i] * step
            _scale(pair, step, weights)
            largest = max(largest, float(step.log().abs().max()))
        if largest < SETTLED:
            break
    return totals


def _limits(pair: LayerAndReaders, seen: _ChannelExtremes, like: Tensor) -> Tensor:
    """Returns the least divisor that each channel may have, `(channels,)`; infinity where a channel must keep its scale."""
    limits = torch.zeros_like(like)
    for bound in pair.bounds:
        reach = (seen.high if bound > 0 else seen.low) / bound
        limits = limits.maximum(torch.where(reach >= 1, torch.inf, (HEADROOM * reach).clamp(0, 1)))
    return limits


def incoming(reader: ReadingLayer, weights: dict[str, Tensor]) -> Tensor:
    """Returns a view of a reader's weight as `(groups, outputs, inputs, positions)`."""
    weight = weights[reader.layer.weight]
    linear = reader.layer.node.target is torch.ops.aten.linear.default
    groups = 1 if linear else node_arguments(reader.layer.node)[6]
    return weight.view(groups, weight.shape[0] // groups, weight.shape[1], -1)


def _scale(pair: LayerAndReaders, by: Tensor, weights: dict[str, Tensor]) -> None:
    first = weights[pair.first.weight]
    first /= by.reshape(-1, *[1] * (first.dim() - 1))
    if pair.first.bias is not None:
        weights[pair.first.bias] /= by
    for reader in pair.readers:
        weight = incoming(reader, weights)
        weight *= by.repeat_interleave(reader.repeats).reshape(weight.shape[0], 1, weight.shape[2], 1)


# Biases


def _absorb(graph: Graph, pair: LayerAndReaders, low: Tensor, high: Tensor) -> bool:
    """Moves each channel's least value, if it is positive, into the readers' biases; tells whether any channel had one."""
    if not (pair.rectified and pair.shifts):
        return False
    clipped = torch.zeros_like(low, dtype=torch.bool)
    for bound in pair.bounds:
        clipped |= high >= bound  # channels that reach the clip, whose scale is 1
    least = torch.where(clipped | (low <= EQUAL * high), 0.0, low)
    if not bool((least > 0).any()):
        return False
    add_to_biases(graph, [pair.first], -least)
    for reader in pair.readers:
        weight = incoming(reader, {reader.layer.weight: graph.tensor(reader.layer.weight).detach().double()})
        moved = least.repeat_interleave(reader.repeats).reshape(weight.shape[0], 1, weight.shape[2], 1)
        add_to_biases(graph, [reader.layer], (weight * moved).sum((2, 3)).flatten())
    return True
