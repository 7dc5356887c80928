"""Compares hard roundings of a part by the errors of its outputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.quantization.rounding._parts import Learned, SampledSpan

TIMES = 3  # steps that move a bias: one is not enough where the clip behind the layer cuts part of the move off


@dataclass(frozen=True)
class Hard:
    """Integers for the weights of a part, and the errors that they cause.

    Attributes:
        learned: the integers, and the change of the bias where the part has its own.
        errors: `(channels,)`, the outputs' mean squared errors.
    """

    learned: Learned
    errors: Tensor


def centred(part: SampledSpan, integers: list[Tensor], shift: Tensor | None = None) -> Hard:
    """Moves the bias, where a part has its own, until the outputs' mean error is zero.

    Args:
        part: the part.
        integers: `(rows, weights)` for each of the part's weights.
        shift: `(channels,)`, the change of the bias to start from; zero by default.
    """
    weights = [weight.values(one) for weight, one in zip(part.weights, integers, strict=True)]
    if part.bias is None:
        return Hard(Learned(integers), part.compare(weights)[0])
    for _ in range(TIMES):
        off = part.compare(weights, shift)[1]
        shift = -off if shift is None else shift - off
    return Hard(Learned(integers, shift), part.compare(weights, shift)[0])


def better(part: SampledSpan, one: Hard, other: Hard) -> Learned:
    """Returns the rounding with the smaller error; decides channel by channel where each channel has its own weights."""
    first, second = one.learned, other.learned
    if not part.span.is_layer:
        return first if one.errors.sum() < other.errors.sum() else second
    taken = one.errors < other.errors
    rows, others = (learned.integers[0].reshape(len(taken), -1) for learned in (first, second))
    integers = torch.where(taken[:, None], rows, others).reshape(first.integers[0].shape)
    if first.shift is None or second.shift is None:
        return Learned([integers])
    return Learned([integers], torch.where(taken, first.shift, second.shift))
