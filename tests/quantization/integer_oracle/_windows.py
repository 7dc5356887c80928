"""What a kernel's positions see as it slides over the spatial axes of a tensor, one strided slice per position."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """Returns one number per spatial axis of an argument that may be a number, a list of one, or a list."""
    numbers = [value] if isinstance(value, int) else list(value)
    return tuple(numbers * axes if len(numbers) == 1 else numbers)


@dataclass(frozen=True)
class Windows:
    """How a kernel slides; every tuple has one entry per spatial axis.

    Attributes:
        kernel: its size.
        stride: its steps.
        padding: what is added before and behind each axis.
        dilation: distance of the kernel's positions.
        ceil_mode: whether a window that hangs over the end counts (it must begin within the input or the padding before).
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False

    def count(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Returns how many windows there are along each axis of the given sizes."""
        counts = []
        for axis, size in enumerate(sizes):
            before, behind = self.padding[axis]
            stride = self.stride[axis]
            room = size + before + behind - self.dilation[axis] * (self.kernel[axis] - 1) - 1
            count = room // stride + 1
            if self.ceil_mode and room % stride and count * stride < size + before:
                count += 1
            counts.append(count)
        return tuple(counts)

    def over(self, x: Tensor, filling: int) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        """Yields each position of the kernel and what it sees, (N, C, windows…).

        Args:
            x: (N, C, sizes…).
            filling: value of the padding.
        """
        counts = self.count(x.shape[2:])
        pads: list[int] = []
        for axis in reversed(range(len(counts))):  # the last axis comes first
            reach = (counts[axis] - 1) * self.stride[axis] + self.dilation[axis] * (self.kernel[axis] - 1) + 1
            before = self.padding[axis][0]
            pads += [before, max(0, reach - before - x.shape[2 + axis])]
        x = F.pad(x, pads, value=filling)
        for position in itertools.product(*map(range, self.kernel)):
            cut = tuple(
                slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
                for at, dilation, count, stride in zip(position, self.dilation, counts, self.stride, strict=True)
            )
            yield position, x[(slice(None), slice(None), *cut)]
