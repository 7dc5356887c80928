"""Applies a gain to each output channel through the scales of a layer's weight, so that the integers stay."""

from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph import Graph
from penjing.graph.straight_through import ops
from penjing.quantization.corrections._side_by_side import RoundedLayer

aten = torch.ops.aten


def scale_of(graph: Graph, layer: RoundedLayer) -> str | None:
    """Returns the path of a rounded weight's scales, one or several per output channel; None if there are no such scales."""
    restore: Any = layer.node.args[1]
    while restore.target is aten.reshape.default:
        restore = restore.args[0]
    per_channel = restore.target is ops.dequantize_per_channel.default and restore.args[3] == 0
    scale = restore.args[1] if per_channel or restore.target is ops.dequantize_per_channel_group.default else None
    return str(scale.target) if isinstance(scale, fx.Node) and scale.op == "get_attr" else None


def are_powers_of_two(scales: Tensor) -> bool:
    """Tells whether scales are powers of two, which a gain would change."""
    return bool((torch.frexp(scales).mantissa == 0.5).all())


def apply_gain(graph: Graph, layer: RoundedLayer, scale: str, gain: Tensor) -> None:
    """Multiplies a layer's weight, scales and bias by `gain`, `(channels,)`; stored integers stay."""
    with torch.no_grad():
        for path in (layer.weight, scale, layer.bias):
            tensor = None if path is None else graph.tensor(path)
            if tensor is not None and tensor.dtype.is_floating_point:
                tensor *= gain.to(tensor).reshape(-1, *[1] * (tensor.dim() - 1))
