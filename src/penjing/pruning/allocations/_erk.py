"""Small layers keep a larger share of their units than large ones."""

import math
from collections.abc import Sequence

from torch import Tensor

from penjing.pruning.allocations._registry import Rounding, Scored, allocations, rounded
from penjing.pruning.allocations._spread import spread


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
    kept = [size * sum(shape) / math.prod(shape) for size, shape in zip(sizes, shapes, strict=True)]
    wanted = max(sum(sizes) - math.floor(amount * sum(sizes) + 0.5), len(sizes))
    return [rounded(one, size, rounding) for one, size in zip(spread(kept, sizes, wanted, 1), sizes, strict=True)]
