"""Hard roundings of a part, compared and improved by what they make of its outputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.quantize.rounding._parts import Learned, Part

CENTRED = (
    3  # how often a bias is moved by what the outputs are off: at once is not enough where a clip takes some of it
)
FEW_WEIGHTS = 32  # of each output, as depthwise layers have: so few can be tried one by one
SWEEPS = 4  # over them


@dataclass(frozen=True)
class Hard:
    """Whole numbers for the weights of a part, and what comes of them.

    Attributes:
        integers: `(rows, weights)` for each weight, counted from the zero points.
        shift: `(channels,)`, what is added to the bias.
        errors: `(channels,)`, mean squares of what the outputs are off.
    """

    integers: list[Tensor]
    shift: Tensor
    errors: Tensor


def centred(part: Part, integers: list[Tensor], shift: Tensor, times: int = CENTRED) -> Hard:
    """Moves a bias, where the part has its own, to where the outputs are right on average.

    Args:
        part: that the weights are of.
        integers: `(rows, weights)` for each of them.
        shift: `(channels,)`, what to begin with.
        times: how often it is moved.
    """
    weights = [weight.values(one) for weight, one in zip(part.weights, integers, strict=True)]
    if not part.bias:
        return Hard(integers, torch.zeros_like(shift), part.compare(weights)[0])
    for _ in range(times):
        shift = shift - part.compare(weights, shift)[1]
    return Hard(integers, shift, part.compare(weights, shift)[0])


def polished(part: Part, learned: Hard, nearest: Hard) -> Learned:
    """Returns the better of two roundings; by channel where the part is one layer, whose channels don't touch each other.

    With few weights for each output, every one is then tried one step up and one down, in all channels at once, and moved
    where that is better, over and over.
    """
    if len(part.weights) > 1:
        return _learned(part, learned if learned.errors.sum() < nearest.errors.sum() else nearest)
    best = _better(learned, nearest)
    count = len(best.errors)
    if best.integers[0].numel() > FEW_WEIGHTS * count:
        return _learned(part, best)
    for _ in range(SWEEPS):
        before = best
        for weight in range(best.integers[0].numel() // count):
            for step in (1, -1):
                tried = best.integers[0].clone()
                tried.reshape(count, -1)[:, weight] += step
                best = _better(centred(part, [tried], best.shift, times=1), best)
        if best.errors.equal(before.errors):
            break
    return _learned(part, _better(centred(part, best.integers, best.shift), best))


def _better(one: Hard, other: Hard) -> Hard:
    """Joins the better channels of two roundings of one layer."""
    better = one.errors < other.errors
    rows, others = (hard.integers[0].reshape(len(better), -1) for hard in (one, other))
    integers = torch.where(better[:, None], rows, others).reshape(one.integers[0].shape)
    shift = torch.where(better, one.shift, other.shift)
    return Hard([integers], shift, one.errors.minimum(other.errors))


def _learned(part: Part, hard: Hard) -> Learned:
    return Learned(hard.integers, hard.shift if part.bias else None)
