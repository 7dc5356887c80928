"""Second moments of a layer's inputs and of its wanted outputs, from which errors of its products are computed."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from penjing.evidence.windows import each, padding
from penjing.graph.ops import node_arguments

aten = torch.ops.aten
POSITIONS = 2**15  # most positions of a convolution's output, over all samples, in the moments
ROWS = 2**12  # rows of a linear layer's input that are multiplied at a time


@dataclass(frozen=True)
class Moments:
    """Means of products, for each group of a layer.

    Attributes:
        count: the number of positions.
        inputs: `(groups, weights, weights)`, means of the products of two inputs of an output's weights.
        both: `(groups, outputs, weights)`, means of the products of a wanted output and an input.
        power: `(groups, weights)`, means of the inputs' squares about zero.
    """

    count: int
    inputs: Tensor
    both: Tensor
    power: Tensor

    def joined(self, other: "Moments") -> "Moments":
        """Returns the moments of both sets of positions together."""
        share = other.count / (self.count + other.count)
        inputs, both = (1 - share) * self.inputs + share * other.inputs, (1 - share) * self.both + share * other.both
        power = (1 - share) * self.power + share * other.power
        return Moments(self.count + other.count, inputs, both, power)

    def error(self, weights: Tensor) -> float:
        """Returns the mean squared error, up to a constant, of the outputs for these weights, `(groups, outputs, weights)`."""
        return float(((weights @ self.inputs - 2 * self.both) * weights).sum())


def moments(
    layer: fx.Node, inputs: Tensor, wanted: Tensor, generator: torch.Generator, *, central: bool
) -> tuple[Moments, Moments]:
    """Returns the moments of a convolution or linear layer for the first half of the samples and for the second half.

    Args:
        layer: the layer's node.
        inputs: the layer's input, `(samples, …)`.
        wanted: the wanted products, `(samples, …)`.
        generator: draws a sample of positions where there are many.
        central: whether the moments are about the means of all samples instead of about zero.
    """
    weight = node_arguments(layer)[1].meta["val"]
    groups = 1 if layer.target is aten.linear.default else int(node_arguments(layer)[6])
    sizes = groups, int(weight.shape[0]) // groups, weight[0].numel()
    sums = [_Sums(*sizes, wanted.device) for _ in range(2)]
    for half, x, y in _products(layer, inputs, wanted, groups, generator):
        sums[half].add(x.double(), y.double())
    count = sum(one.count for one in sums)
    x_mean, y_mean = (sum(one.x for one in sums) / count, sum(one.y for one in sums) / count)
    if not central:
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
        """Returns the moments about these means."""
        count = max(self.count, 1)
        own_x, own_y = self.x / count - x, self.y / count - y
        inputs = self.xx / count - (own_x[:, :, None] * x[:, None] + x[:, :, None] * self.x[:, None] / count)
        both = self.yx / count - (own_y[:, :, None] * x[:, None] + y[:, :, None] * self.x[:, None] / count)
        return Moments(self.count, inputs, both, self.xx.diagonal(dim1=1, dim2=2) / count)


def _products(
    layer: fx.Node, inputs: Tensor, wanted: Tensor, groups: int, generator: torch.Generator
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yields the half, 0 or 1, inputs `(groups, positions, weights)` and wanted outputs `(groups, positions, outputs)`."""
    linear = layer.target is aten.linear.default
    count = len(wanted)
    size, middle = (ROWS if linear else 1), -(-count // 2)
    for half, (start, end) in enumerate(((0, middle), (middle, count))):
        pieces = zip(inputs[start:end].split(size), wanted[start:end].split(size), strict=True)
        for x, y in pieces if end > start else ():
            if linear:
                yield half, x.flatten(0, -2)[None], y.flatten(0, -2)[None]
                continue
            drawn = torch.randperm(y[0, 0].numel(), generator=generator)[: max(1, POSITIONS // count)]
            halves = {half: drawn} if count > 1 else dict(enumerate(drawn.chunk(2)))
            for own, chosen in halves.items():
                found = torch.stack([tap.flatten(2)[0][:, chosen] for tap in _taps(layer, x)], 1)
                xs, ys = (
                    found.reshape(groups, -1, len(chosen)),
                    y.flatten(2)[0][:, chosen].reshape(groups, -1, len(chosen)),
                )
                yield own, xs.mT, ys.mT


def _taps(layer: fx.Node, x: Tensor) -> list[Tensor]:
    """Returns the input values under each position of a convolution's kernel, `(1, channels, *positions)` each."""
    weight, _, stride, given, dilation = node_arguments(layer)[1:6]
    kernel = weight.meta["val"].shape[2:]
    axes = len(kernel)
    stride, dilation = each(stride, axes), each(dilation, axes)
    x = F.pad(x, padding(given, kernel, dilation))
    sizes = [(x.shape[2 + a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in range(axes)]
    taps = []
    for place in itertools.product(*(range(k) for k in kernel)):
        window = [
            slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, n, s in zip(place, dilation, sizes, stride, strict=True)
        ]
        taps.append(x[(slice(None), slice(None), *window)])
    return taps
