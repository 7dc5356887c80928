"""Small layers keep a larger share of their units than large ones."""

import math
from collections.abc import Sequence

from torch import Tensor

from penjing.pruning.allocations._registry import Rounding, Scored, allocations, rounded


@allocations.register(
    source="Mocanu et al., SET, 2018; Evci et al., Rigging the Lottery: Making All Tickets Winners, 2020"
)
def erk(scores: Sequence[Tensor], amount: float, rounding: Rounding, places: Sequence[Scored] = ()) -> list[int]:
    """Erdős–Rényi kernel: a layer's kept share is proportional to (out + in + height + width) / (out · in · height · width).

    A layer whose share would exceed 1 stays whole, and the other layers share the rest. The amount is the share of all
    units together.
    """
    sizes = [len(score) for score in scores]
    shapes = [place.shape for place in places] or [(size,) for size in sizes]
    raw = [sum(shape) / math.prod(shape) for shape in shapes]
    wanted = max(sum(sizes) - math.floor(amount * sum(sizes) + 0.5), len(sizes))
    whole: set[int] = set()
    while True:
        open_ = [i for i in range(len(sizes)) if i not in whole]
        left = wanted - sum(sizes[i] for i in whole)
        scale = left / sum(raw[i] * sizes[i] for i in open_) if open_ else 0.0
        full = {i for i in open_ if raw[i] * scale >= 1}
        if not full:
            break
        whole |= full
    exact = [float(size) if i in whole else raw[i] * scale * size for i, size in enumerate(sizes)]
    return [rounded(kept, size, rounding) for kept, size in zip(_whole_numbers(exact, wanted), sizes, strict=True)]


def _whole_numbers(exact: Sequence[float], total: int) -> list[int]:
    """Rounds numbers to whole ones of at least 1 that add up to `total`, by the largest-remainder method."""
    kept = [max(1, math.floor(number)) for number in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: kept[i] - exact[i])
    for i in by_remainder[: max(total - sum(kept), 0)]:
        kept[i] += 1
    while sum(kept) > total:  # ends: the total is at least the count of the numbers
        kept[max(range(len(kept)), key=lambda i: (kept[i] > 1, kept[i] - exact[i]))] -= 1
    return kept
