"""The size, stride, dilation and padding of convolutions' windows, axis by axis."""

from collections.abc import Sequence
from typing import Any


def each(number: Any, axes: int) -> list[int]:
    """Returns one number for each axis of positions, from an argument that is one number for all axes or one for each."""
    numbers = list(number) if isinstance(number, list | tuple) else [number]
    return [int(one) for one in (numbers * axes if len(numbers) == 1 else numbers)]


def padding(given: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Returns the zeros before and behind each axis of positions, the last axis first, as `torch.nn.functional.pad` takes them.

    Args:
        given: the padding argument of a convolution: numbers, "same" or "valid".
        kernel: the kernel's size along each axis.
        dilation: the dilation along each axis.
    """
    if given == "valid":
        return [0] * 2 * len(kernel)
    if given == "same":
        totals = [gap * (size - 1) for size, gap in zip(kernel, dilation, strict=True)]
        pairs = [(total // 2, total - total // 2) for total in totals]
    else:
        pairs = [(width, width) for width in each(given, len(kernel))]
    return [width for pair in reversed(pairs) for width in pair]
