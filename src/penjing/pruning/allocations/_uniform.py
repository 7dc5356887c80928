"""The same share everywhere."""

import math
from collections.abc import Sequence

from torch import Tensor

from penjing.pruning.allocations._registry import Rounding, Scored, allocations, rounded


@allocations.register(source="Li et al., Pruning Filters for Efficient ConvNets, 2017")
def uniform(scores: Sequence[Tensor], amount: float, rounding: Rounding, places: Sequence[Scored] = ()) -> list[int]:
    """The same share of every group's units."""
    return [rounded(len(s) - math.floor(amount * len(s) + 0.5), len(s), rounding) for s in scores]
