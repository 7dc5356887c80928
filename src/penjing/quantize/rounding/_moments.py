"""What a layer's products are made of, in second moments: how its inputs, and the wanted outputs, vary together."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from penjing.graph.normalize import node_arguments
from penjing.quantize.rounding._parts import Part

aten = torch.ops.aten
POSITIONS = 2**15  # that moments are taken from


@dataclass(frozen=True)
class Moments:
    """Second moments for each group of a layer, about the means where its bias takes these up.

    Attributes:
        inputs: `(groups, weights, weights)`, of what the weights of an output are multiplied with.
        both: `(groups, outputs, weights)`, of the wanted outputs and those.
    """

    inputs: Tensor
    both: Tensor


def moments(part: Part, generator: torch.Generator) -> Moments:
    """Takes the moments of a part that is one convolution or linear layer.

    Args:
        part: a layer, with nothing behind it.
        generator: draws positions, where there are many.
    """
    layer = part.span.layers[0]
    weight = node_arguments(layer)[1].meta["val"]
    groups = 1 if layer.target is aten.linear.default else int(node_arguments(layer)[6])
    width, outputs = weight[0].numel(), weight.shape[0] // groups
    inputs = torch.zeros(groups, width, width, dtype=torch.float64)
    both = torch.zeros(groups, outputs, width, dtype=torch.float64)
    mean_in, mean_out = (
        torch.zeros(groups, width, dtype=torch.float64),
        torch.zeros(groups, outputs, dtype=torch.float64),
    )
    count = 0
    for x, y in _products(part, layer, groups, generator):
        inputs += (x.transpose(1, 2) @ x).double()
        both += (y.transpose(1, 2) @ x).double()
        mean_in, mean_out = mean_in + x.sum(1).double(), mean_out + y.sum(1).double()
        count += x.shape[1]
    inputs, both, mean_in, mean_out = inputs / count, both / count, mean_in / count, mean_out / count
    if part.bias:
        inputs -= mean_in[:, :, None] * mean_in[:, None]
        both -= mean_out[:, :, None] * mean_in[:, None]
    return Moments(inputs, both)


def _products(part: Part, layer: fx.Node, groups: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields `(groups, positions, weights)` inputs and `(groups, positions, outputs)` wanted outputs, piece by piece."""
    wanted = part.wanted
    if layer.target is aten.linear.default:
        for x, y in zip(part.inputs[0].split(4096), wanted.split(4096), strict=True):
            yield x[None], y[None]
        return
    places = wanted[0, 0].numel()
    each = max(1, min(places, POSITIONS // len(wanted)))
    for x, y in zip(part.inputs[0].split(1), wanted.split(1), strict=True):
        chosen = torch.randperm(places, generator=generator)[:each] if each < places else torch.arange(places)
        found = torch.stack([tap.flatten(2)[0][:, chosen] for tap in _taps(layer, x)], 1)
        xs = found.reshape(groups, -1, found.shape[-1]).transpose(1, 2)
        ys = y.flatten(2)[0][:, chosen].reshape(groups, -1, len(chosen)).transpose(1, 2)
        yield xs, ys


def _taps(layer: fx.Node, x: Tensor) -> list[Tensor]:
    """Returns what each position of a convolution's kernel reads, `(1, channels, *positions)`."""
    weight, _, stride, padding, dilation = node_arguments(layer)[1:6]
    kernel = weight.meta["val"].shape[2:]
    axes = len(kernel)
    stride, dilation = _each(stride, axes), _each(dilation, axes)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(p, p) for p in _each(0 if padding == "valid" else padding, axes)]
    x = F.pad(x, [p for pair in reversed(pads) for p in pair])
    sizes = [(x.shape[2 + a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in range(axes)]
    taps = []
    for place in itertools.product(*(range(k) for k in kernel)):
        window = [
            slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, n, s in zip(place, dilation, sizes, stride, strict=True)
        ]
        taps.append(x[(slice(None), slice(None), *window)])
    return taps


def _each(value: Any, axes: int) -> list[int]:
    values = list(value) if isinstance(value, Sequence) else [value]
    return [int(one) for one in (values * axes if len(values) == 1 else values)]
