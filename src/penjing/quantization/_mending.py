"""Layers in which rounding leaves more noise than signal: which they are, what mends them, and what is said of the others."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.capabilities import Placement
from penjing.evidence.observation import observe
from penjing.graph import Graph
from penjing.quantization._noise import Noise, Own, Power, channel_axis, compute, float_values, own_noise
from penjing.quantization._running import in_floats
from penjing.quantization.corrections import even_scales
from penjing.quantization.grids import Grid, affine, integers

# Noise is the power of a layer's error over the power of what varies in its output.
SUSPECT = 0.25  # with the noise of all layers before: 6 dB. Published 8-bit networks stay above 15 dB
WORTH = 0.1  # of a layer's own roundings: 10 dB. Values of one range get 30 to 40 dB from 8 bits
DROWNED = 0.5  # of a layer's own roundings: 3 dB. A layer above this is named in a warning
BITS = 8  # a layer in fewer bits is noisy because that was asked for
LAYERS_NAMED = 5


@dataclass(frozen=True)
class Layer:
    """What is known of a layer in few bits.

    Attributes:
        place: where the user finds it.
        bits: of its weights.
    """

    place: str
    bits: int


def is_suspect(noise: Noise, layers: Mapping[str, Layer], activations: Grid | None) -> bool:
    """Tells whether a layer's noise is so large that each layer's own is worth measuring."""
    few = [layer for layer in layers.values() if layer.bits < BITS]
    meant = bool(few) or (activations is not None and activations.bits < BITS)
    return noise.worst > (DROWNED if meant else SUSPECT)


def find_scales(
    own: Mapping[str, Own],
    reference: Graph,
    data: Any,
    batches: Sequence[Sequence[Tensor]],
    layers: Mapping[str, Layer],
    activations: Grid | None,
) -> dict[str, Tensor]:
    """Returns, by name, scales of the inputs of layers that they would give less than half of the noise.

    Args:
        own: noise of the layers' own roundings.
        reference: the float graph.
        data: calibration data, all of which tell the channels' ranges.
        batches: of flat inputs, on which the noise is measured.
        layers: that are in few bits, by name.
        activations: grid of what they read; None where that isn't rounded.
    """
    if activations is not None and activations.bits < BITS:
        return {}
    wanted = [
        name
        for name, noise in own.items()
        if noise.inputs + noise.weights > WORTH and name in layers and layers[name].bits >= BITS
    ]
    nodes = {node.name: node for node in reference.program.graph.nodes if node.name in wanted}
    seen: dict[str, list[Tensor]] = {name: [] for name in nodes}
    ranges: dict[Any, _Ranges] = {node.args[0]: _Ranges(channel_axis(node)) for node in nodes.values()}
    if ranges:
        observe(reference, data, ranges, compute=in_floats)
    with torch.no_grad():
        for inputs in batches if wanted else ():
            values = float_values(reference, inputs)
            for name, node in nodes.items():
                seen[name].append(values[node.args[0].name])  # type: ignore[union-attr]
        found = {}
        for name, node in nodes.items():
            by = even_scales(ranges[node.args[0]].largest)
            if _noise_with(by, reference, node, seen[name], activations) < (own[name].inputs + own[name].weights) / 2:
                found[name] = by
    return found


class _Ranges:
    """The largest magnitude of each channel, `(channels,)`."""

    def __init__(self, axis: int) -> None:
        self._axis, self.largest = axis, torch.zeros(())

    def update(self, values: Tensor) -> None:
        self.largest = values.movedim(self._axis, -1).flatten(0, -2).abs().amax(0).maximum(self.largest)


def _noise_with(
    by: Tensor, reference: Graph, layer: fx.Node, inputs: Sequence[Tensor], activations: Grid | None
) -> float:
    """Returns what a layer's own noise would be with these scales: one range for its input, one for each output channel."""
    weight: Any = layer.args[1]
    real, power = reference.tensor(str(weight.target)).detach(), Power()
    shape = [1] * inputs[0].dim()
    shape[channel_axis(layer)] = -1
    spread = by.reshape(shape)
    low = min(float((x * spread).amin()) for x in inputs)
    high = max(float((x * spread).amax()) for x in inputs)
    rounded = _rounded_weight(real, by)
    for x in inputs:
        given = x if activations is None else _rounded(x * spread, low, high, activations) / spread
        wanted = compute(layer, x, real)
        power.add(wanted, compute(layer, given, rounded) - wanted, channel_axis(layer))
    return power.noise


def _rounded(x: Tensor, low: float, high: float, grid: Grid) -> Tensor:
    laid = affine(low, high, grid)
    whole = (x / laid.scale).round() + laid.zero_point
    return (whole.clamp(grid.low, grid.high) - laid.zero_point) * laid.scale


def _rounded_weight(weight: Tensor, by: Tensor) -> Tensor:
    """Rounds a weight that takes the scales back, `(out_channels, in_channels / groups, …)`, and scales it again."""
    groups = len(by) // weight.shape[1]
    own = by.reshape(groups, 1, -1, 1)
    rows = (weight.reshape(groups, len(weight) // groups, weight.shape[1], -1) / own).flatten(2)
    step = rows.abs().amax(-1, keepdim=True) / integers("int8").high
    rounded = (rows / step.where(step > 0, 1.0)).round() * step
    return (rounded.reshape(groups, len(weight) // groups, weight.shape[1], -1) * own).reshape(weight.shape)


def warn_of_noise(
    small: Graph,
    reference: Graph,
    batches: Sequence[Sequence[Tensor]],
    noise: Noise,
    layers: Mapping[str, Layer],
    placement: Placement,
) -> dict[str, float]:
    """Warns of the layers whose own roundings leave little but noise, or of the first that all noise together drowns.

    Returns:
        By place, how many dB what varies stands above the noise.
    """
    own = own_noise(small, reference, batches, placement)
    drowned = {layers[name].place: max(found.inputs, found.weights) for name, found in own.items() if name in layers}
    drowned = {place: found for place, found in drowned.items() if found > DROWNED}
    if not drowned and all(layer.bits >= BITS for layer in layers.values()):
        together = {name: power.noise for name, power in noise.of_layers.items() if power.noise > 1}
        first = next((name for name in together if name in layers), None)
        drowned = {} if first is None else {layers[first].place: together[first]}
    if not drowned:
        return {}
    levels = {place: -10 * math.log10(found) for place, found in drowned.items()}
    named = [f"'{place}' ({level:.1f} dB)" for place, level in levels.items()]
    listed = ", ".join(named[:LAYERS_NAMED]) + (" and others" if len(named) > LAYERS_NAMED else "")
    patterns = ", ".join(f'"{place}"' for place in list(levels)[:LAYERS_NAMED])
    warnings.warn(
        f"Rounding leaves little of what varies in {listed} of {small.name}: what the values there differ by is small beside "
        "their range, or one range holds parts of very different ones. Scale the inputs, or leave these layers in floating "
        f"point: exclude=[{patterns}].",
        stacklevel=4,
    )
    return levels
