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
POSITIONS = 2**15  # of convolutions, that moments are taken from
ROWS = 2**12  # of linear layers, at once


@dataclass(frozen=True)
class Moments:
    """Means of products, for each group of a layer.

    Attributes:
        count: of positions.
        inputs: `(groups, weights, weights)`, of what the weights of an output are multiplied with.
        both: `(groups, outputs, weights)`, of the wanted outputs and those.
        power: `(groups, weights)`, of the inputs' squares about zero.
    """

    count: int
    inputs: Tensor
    both: Tensor
    power: Tensor

    def joined(self, other: "Moments") -> "Moments":
        """Returns those of both samples together."""
        share = other.count / (self.count + other.count)
        inputs, both = (1 - share) * self.inputs + share * other.inputs, (1 - share) * self.both + share * other.both
        power = (1 - share) * self.power + share * other.power
        return Moments(self.count + other.count, inputs, both, power)

    def error(self, weights: Tensor) -> float:
        """Returns the mean squared error of the outputs that weights give, `(groups, outputs, weights)`, but for a constant."""
        return float(((weights @ self.inputs - 2 * self.both) * weights).sum())


def moments(part: Part, generator: torch.Generator) -> tuple[Moments, Moments]:
    """Takes the moments of a part that is one convolution or linear layer, of the first half of its samples and of the others.

    They are about the means of all samples where the part has a bias of its own, which takes these up.

    Args:
        part: a layer, with nothing behind it.
        generator: draws positions, where there are many.
    """
    layer = part.span.layers[0]
    weight = node_arguments(layer)[1].meta["val"]
    groups = 1 if layer.target is aten.linear.default else int(node_arguments(layer)[6])
    sizes = groups, int(weight.shape[0]) // groups, weight[0].numel()
    sums = [_Sums(*sizes, part.wanted.device) for _ in range(2)]
    for half, x, y in _products(part, layer, groups, generator):
        sums[half].add(x.double(), y.double())
    count = sum(one.count for one in sums)
    x_mean, y_mean = (sum(one.x for one in sums) / count, sum(one.y for one in sums) / count)
    if part.bias is None:
        x_mean, y_mean = torch.zeros_like(x_mean), torch.zeros_like(y_mean)
    first, second = (one.about(x_mean, y_mean) for one in sums)
    return first, second


class _Sums:
    def __init__(self, groups: int, outputs: int, weights: int, device: torch.device) -> None:
        self.count = 0
        kind: Any = {"dtype": torch.float64, "device": device}
        self.x, self.y = (torch.zeros(groups, size, **kind) for size in (weights, outputs))
        self.xx, self.yx = (torch.zeros(groups, size, weights, **kind) for size in (weights, outputs))

    def add(self, x: Tensor, y: Tensor) -> None:
        self.count += x.shape[1]
        self.x += x.sum(1)
        self.y += y.sum(1)
        self.xx += x.mT @ x
        self.yx += y.mT @ x

    def about(self, x: Tensor, y: Tensor) -> Moments:
        """Returns the moments about given means."""
        count = max(self.count, 1)
        own_x, own_y = self.x / count - x, self.y / count - y
        inputs = self.xx / count - (own_x[:, :, None] * x[:, None] + x[:, :, None] * self.x[:, None] / count)
        both = self.yx / count - (own_y[:, :, None] * x[:, None] + y[:, :, None] * self.x[:, None] / count)
        return Moments(self.count, inputs, both, self.xx.diagonal(dim1=1, dim2=2) / count)


def _products(
    part: Part, layer: fx.Node, groups: int, generator: torch.Generator
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yields 0 or 1 for the half, `(groups, positions, weights)` inputs and `(groups, positions, outputs)` wanted outputs."""
    linear = layer.target is aten.linear.default
    size, middle, wanted = (ROWS if linear else 1), -(-part.count // 2), part.products
    for half, (start, end) in enumerate(((0, middle), (middle, part.count))):
        pieces = zip(part.inputs[0][start:end].split(size), wanted[start:end].split(size), strict=True)
        for x, y in pieces if end > start else ():
            if linear:
                yield half, x.flatten(0, -2)[None], y.flatten(0, -2)[None]
                continue
            drawn = torch.randperm(y[0, 0].numel(), generator=generator)[: max(1, POSITIONS // part.count)]
            halves = {half: drawn} if part.count > 1 else dict(enumerate(drawn.chunk(2)))
            for own, chosen in halves.items():
                found = torch.stack([tap.flatten(2)[0][:, chosen] for tap in _taps(layer, x)], 1)
                xs, ys = (
                    found.reshape(groups, -1, len(chosen)),
                    y.flatten(2)[0][:, chosen].reshape(groups, -1, len(chosen)),
                )
                yield own, xs.mT, ys.mT


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
