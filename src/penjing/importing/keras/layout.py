"""Where axes stand: Keras keeps the channels of images last, PyTorch first. Every tensor of four axes is kept as PyTorch's."""

from collections.abc import Sequence

from torch import Tensor

IMAGE = 4  # axes of a batch of images
FIRST = (0, 3, 1, 2)  # channels last to channels first
LAST = (0, 2, 3, 1)


def axis_of(axis: int, rank: int) -> int:
    """Returns where an axis of Keras' stands."""
    axis %= rank
    return FIRST.index(axis) if rank == IMAGE else axis


def to_first(x: Tensor) -> Tensor:
    """Returns what Keras calls `x` as it is kept."""
    return x.permute(FIRST) if x.ndim == IMAGE else x


def to_last(x: Tensor) -> Tensor:
    """Returns what is kept as `x` as Keras has it."""
    return x.permute(LAST) if x.ndim == IMAGE else x


def same_padding(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Returns the padding before and behind each axis by which outputs have ceil(size / stride) entries, as TensorFlow pads."""
    totals = [
        max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    return [total // 2 for total in totals], [total - total // 2 for total in totals]
