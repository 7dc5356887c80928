"""Networks that show what lies between floats and integers: rounding, and laying out the values anew for other kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from penjing.graph import Graph, capture
from penjing.planning.latency.kernels import QUANTIZE, Kernel
from penjing.quantization import quantize
from penjing.targets import ExecutedNode

SAMPLES = 2  # random samples for the ranges of activations, and as the captured example


def boundary_graph(kernels: Sequence[Kernel], target: str) -> Graph:
    """Returns a graph with a pair of layers for each kernel "quantize" or "dequantize", of which one computes in integers.

    The value between the layers has the kernel's shape, and what the pair reads and makes has one channel, so that rounding
    at the graph's own ends hardly counts.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = list(dict.fromkeys(_narrow(kernel) for kernel in kernels))
    example = tuple(torch.randn(SAMPLES, *shape[1:], generator=generator) for shape in shapes)
    graph = capture(_Pairs(kernels, [shapes.index(_narrow(kernel)) for kernel in kernels]).eval(), example)
    floats = [f"ops.{at}.{'first' if kernel.op == QUANTIZE else 'second'}" for at, kernel in enumerate(kernels)]
    return quantize(graph, [example], exclude=floats, target=target)


def between(kernels: Sequence[Kernel], executed: Sequence[ExecutedNode]) -> dict[Kernel, float]:
    """Returns the microseconds of all that a runtime executes between the layers of each pair."""
    modules = [one.module for one in executed]
    found = {}
    for at, kernel in enumerate(kernels):
        first, second = f"ops.{at}.first", f"ops.{at}.second"
        layers = [n for n, one in enumerate(executed) if one.macs and one.module in (first, second)]
        if len(layers) == 2:
            inner = range(layers[0] + 1, layers[1])
            found[kernel] = sum(
                executed[n].latency_us for n in inner if modules[n] is None or str(modules[n]).startswith(f"ops.{at}.")
            )
    return found


def _narrow(kernel: Kernel) -> tuple[int, ...]:
    """Returns the kernel's shape with one channel."""
    (shape,) = kernel.inputs
    return tuple(1 if axis == kernel.axis else size for axis, size in enumerate(shape))


class _Pairs(nn.Module):
    """A pair of layers per kernel; pairs with inputs of the same shape share them."""

    def __init__(self, kernels: Sequence[Kernel], places: Sequence[int]) -> None:
        super().__init__()
        self._places = tuple(places)
        self.ops = nn.ModuleList(_Pair(kernel) for kernel in kernels)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns what each pair makes."""
        return tuple(op(inputs[place]) for op, place in zip(self.ops, self._places, strict=True))


class _Pair(nn.Module):
    """A layer from one channel to the kernel's, and one back."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        channels = kernel.outs
        if len(kernel.output) == 4:
            self.first: nn.Module = nn.Conv2d(1, channels, 1)
            self.second: nn.Module = nn.Conv2d(channels, 1, 1)
        else:
            self.first, self.second = nn.Linear(1, channels), nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns one channel of x with one channel."""
        out: Tensor = self.second(self.first(x))
        return out
