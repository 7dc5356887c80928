"""Changes biases so that each channel of the quantised network has the mean that it has in the float network."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from penjing.evidence.reader import flat_batches
from penjing.graph import Graph
from penjing.graph.clips import EVERYTHING, Interval
from penjing.quantization.corrections._bias import add_to_biases
from penjing.quantization.corrections._side_by_side import RoundedLayer, quantized_layers, side_by_side

SMALLEST_SLOPE = 0.02  # least P(not clipped): a channel that is nearly always clipped tells little of its bias


def match_means(
    graph: Graph, reference: Graph, data: Any, bounds_of: Callable[[RoundedLayer], Interval]
) -> tuple[str, ...]:
    """Changes each bias so that the mean of the channel's output, clipped to the layer's bounds, is the float network's.

    On each batch b ← b + (n / N) · (E[clip(float output)] − E[clip(quantised output + b)]) / P(not clipped), with n
    samples in the batch and N so far. This is Newton's step, averaged over batches as in stochastic approximation
    (Robbins and Monro 1951). Without bounds, b is the running mean of the difference.

    Args:
        graph: the quantised graph; its biases are changed, and a layer without a bias gets one.
        reference: the float graph that `graph` was made from.
        data: calibration data.
        bounds_of: gives the bounds to which a layer's output is clipped.

    Returns:
        The places of the layers whose bias was changed.
    """
    shifts: dict[str, _Shift] = {}

    def remember(layer: RoundedLayer, output: Tensor) -> tuple[Tensor, Tensor | None]:
        low, high = bounds_of(layer)
        if (low, high) == EVERYTHING:
            return layer.mean(output), None
        some = output[: -(-len(output) // 4)]  # a quarter of the batch: the step's slope needn't be exact
        within = (some > low) & (some < high)
        return layer.mean(output.clamp(low, high)), layer.mean(within.to(output.dtype))

    def correct(layer: RoundedLayer, output: Tensor, wanted: tuple[Tensor, Tensor | None]) -> Tensor:
        mean, slope = wanted
        shift = shifts.setdefault(layer.bias or layer.weight, _Shift(len(mean), mean.device))  # a shared bias has one
        before, bounds = shift.value, bounds_of(layer)
        output.add_(layer.along(before, output))
        found = layer.mean(output if bounds == EVERYTHING else output.clamp(*bounds))
        shift.update(layer, mean - found, slope, output.numel() // len(mean))
        return output.add_(layer.along(shift.value - before, output))

    side_by_side(graph, reference, flat_batches(reference, data), quantized_layers(graph), remember, correct)
    for shift in shifts.values():
        add_to_biases(graph, shift.layers, shift.value)
    graph.refresh()
    return tuple(layer.place for shift in shifts.values() for layer in shift.layers)


class _Shift:
    """The change of one bias, `(channels,)`, as estimated from the batches so far."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.layers: list[RoundedLayer] = []
        self.value = torch.zeros(channels, dtype=torch.float64, device=device)
        self._slope = torch.zeros_like(self.value)
        self._count = 0

    def update(self, layer: RoundedLayer, error: Tensor, slope: Tensor | None, count: int) -> None:
        """Adds one batch: the mean's error, the mean's slope over the bias, and the count of values in the mean."""
        if layer not in self.layers:
            self.layers.append(layer)
        self._count += count
        share = count / self._count
        self._slope += share * ((1.0 if slope is None else slope) - self._slope)
        self.value = self.value + share * error / self._slope.clamp_min(SMALLEST_SLOPE)
