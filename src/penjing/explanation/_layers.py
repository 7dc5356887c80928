"""The noise of each layer: how far its outputs in the small network are from those in the original."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph import Graph, fold_batch_norms
from penjing.graph.ops import LAYERS
from penjing.quantization.calibration.noise import CONSTANT, Power, channel_axis
from penjing.tasks import each_input, moved

SAMPLES = 8  # samples that tell noise from signal to within a decibel or two
MOST = 150.0  # decibels, either way: beyond that lies float32's own rounding, or an output that is no number


@dataclass(frozen=True)
class LayerNoise:
    """How much of a layer's signal is left in the small network, the noise of all layers before it included.

    Attributes:
        path: the layer's module path.
        signal_to_noise_db: power of the outputs' variation about each channel's mean, over the power of the error, in
            decibels; 150 where both compute the same, −150 where the small network's outputs aren't finite.
    """

    path: str
    signal_to_noise_db: float


def noise_of_layers(graph: Graph, small: Graph, inputs: tuple[Tensor, ...]) -> tuple[LayerNoise, ...]:
    """Returns the noise of each convolution and linear layer that both graphs have in the same shape.

    A layer that lost channels, or was factorised, has another shape or another name: nothing is told of it, nor of a layer
    whose outputs don't vary. Batch norms count to the layer in front of them.

    Args:
        graph: the original.
        small: the network that was made of it.
        inputs: a batch of inputs, of which the first eight samples are used.
    """
    if graph.batch is None and small.batch is None:
        inputs = each_input(inputs, lambda tensor: tensor[:SAMPLES])
    before, after = (_outputs(fold_batch_norms(one), inputs) for one in (graph, small))
    found = []
    for key, (layer, wanted) in before.items():
        got = after.get(key)
        if got is None or got[1].shape != wanted.shape:
            continue
        power = Power()
        power.add(wanted, got[1] - wanted, channel_axis(layer))
        if math.isfinite(power.variation) and power.variation > CONSTANT * power.signal:
            found.append(LayerNoise(key[0], _decibels(power.noise)))
    return tuple(found)


def _decibels(noise: float) -> float:
    """Returns by how many decibels a signal stands above a noise that is given as a share of the signal's power."""
    if not math.isfinite(noise):
        return -MOST
    return MOST if noise <= 0 else max(-MOST, min(MOST, -10 * math.log10(noise)))


def _outputs(graph: Graph, inputs: tuple[Tensor, ...]) -> dict[tuple[str, int], tuple[fx.Node, Tensor]]:
    """Returns the layers' nodes and outputs by module path; a module that is called again counts its calls."""
    layers: dict[tuple[str, int], fx.Node] = {}
    for node in graph.program.graph.nodes:
        if node.op == "call_function" and node.target in LAYERS:
            path, call = str(node.meta.get("module") or node.name), 0
            while (path, call) in layers:
                call += 1
            layers[path, call] = node
    parameter: Any = next(iter(graph.parameters()), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    with torch.no_grad():
        _, values = graph.with_outputs([node.name for node in layers.values()])(*moved(inputs, device))
    return {key: (node, values[node.name].float().cpu()) for key, node in layers.items()}
