"""Finds layers with much rounding noise and input scales that reduce the noise; warns of layers that stay noisy."""

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
from penjing.quantization.calibration.noise import Noise, Own, Power, channel_axis, compute, float_values, own_noise
from penjing.quantization.calibration.running import in_floats
from penjing.quantization.corrections import even_scales
from penjing.quantization.grids import Grid, affine, integers

# Noise is the power of a layer's error over the power of the variation in its output: a ratio, 0.1 is 10 dB.
SUSPECT = 0.25  # noise that includes that of all layers before: 6 dB. Published 8-bit networks stay above 15 dB
WORTH = 0.1  # noise of a layer's own roundings, 10 dB, above which scales are tried. Equal ranges give 30 to 40 dB
DROWNED = 0.5  # noise of a layer's own roundings: 3 dB. A warning names each layer above this
BITS = 8  # bits of a weight or activation: a layer with fewer is noisy because the user asked for fewer
LAYERS_NAMED = 5


@dataclass(frozen=True)
class LayerBits:
    """A layer whose weights are rounded to few bits.

    Attributes:
        place: the module path, or the line of code, where the user finds the layer.
        bits: bits per weight.
    """

    place: str
    bits: int


def is_suspect(noise: Noise, layers: Mapping[str, LayerBits], activations: Grid | None) -> bool:
    """Tells whether some layer has so much noise that measuring the noise of each layer's own roundings is worthwhile."""
    few = [layer for layer in layers.values() if layer.bits < BITS]
    meant = bool(few) or (activations is not None and activations.bits < BITS)
    return noise.worst > (DROWNED if meant else SUSPECT)


def find_scales(
    own: Mapping[str, Own],
    reference: Graph,
    data: Any,
    batches: Sequence[Sequence[Tensor]],
    layers: Mapping[str, LayerBits],
    activations: Grid | None,
) -> dict[str, Tensor]:
    """Returns, by layer name, input scales, `(channels,)`, for the layers whose own noise these scales more than halve.

    Args:
        own: noise of each layer's own roundings, by name.
        reference: the float graph.
        data: calibration data; all of them are read for the channels' ranges.
        batches: batches of flat inputs on which the noise is measured.
        layers: the layers with few-bit weights, by name.
        activations: the grid of the layers' inputs; None where inputs aren't rounded.
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
    """Returns a layer's own noise under these input scales, with one range for the input and one for each output channel."""
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
    """Divides a weight `(out_channels, in_channels / groups, …)` by the input's scales, rounds it, and multiplies it again."""
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
    layers: Mapping[str, LayerBits],
    placement: Placement,
) -> dict[str, float]:
    """Warns of layers whose own roundings leave little but noise, or of the first layer that all noise together drowns.

    Returns:
        By place, the ratio of the variation to the noise in dB.
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
        f"Rounding leaves little of the signal in {listed} of {small.name}: the values there vary little compared with their "
        "range, or one range covers parts of very different size. Scale the inputs, or leave these layers in floating point: "
        f"exclude=[{patterns}].",
        stacklevel=4,
    )
    return levels
