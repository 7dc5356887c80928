"""Hard roundings of a part, compared by what they make of its outputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.quantization.rounding._parts import Learned, Part

TIMES = 3  # a bias is moved: once is not enough where the layer's clip takes some of it


@dataclass(frozen=True)
class Hard:
    """Whole numbers for the weights of a part, and what comes of them.

    Attributes:
        learned: the integers, and what is added to the bias where the part has its own.
        errors: `(channels,)`, mean squares of what the outputs are off.
    """

    learned: Learned
    errors: Tensor


def centred(part: Part, integers: list[Tensor], shift: Tensor | None = None) -> Hard:
    """Moves the bias, where a part has its own, to where the outputs are right on average.

    Args:
        part: that the weights are of.
        integers: `(rows, weights)` for each of them.
        shift: `(channels,)`, what to begin with; nothing by default.
    """
    weights = [weight.values(one) for weight, one in zip(part.weights, integers, strict=True)]
    if part.bias is None:
        return Hard(Learned(integers), part.compare(weights)[0])
    for _ in range(TIMES):
        off = part.compare(weights, shift)[1]
        shift = -off if shift is None else shift - off
    return Hard(Learned(integers, shift), part.compare(weights, shift)[0])


def better(part: Part, one: Hard, other: Hard) -> Learned:
    """Returns the better of two roundings; by channel where each channel has weights of its own."""
    first, second = one.learned, other.learned
    if not part.span.is_layer:
        return first if one.errors.sum() < other.errors.sum() else second
    taken = one.errors < other.errors
    rows, others = (learned.integers[0].reshape(len(taken), -1) for learned in (first, second))
    integers = torch.where(taken[:, None], rows, others).reshape(first.integers[0].shape)
    if first.shift is None or second.shift is None:
        return Learned([integers])
    return Learned([integers], torch.where(taken, first.shift, second.shift))
