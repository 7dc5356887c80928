"""An amount for each place."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from penjing.errors import unknown_name
from penjing.pruning.allocations._registry import Rounding, Scored, allocations, rounded


@allocations.register(source="Li et al., Pruning Filters for Efficient ConvNets, 2017 (rates by layer)", takes="shares")
def plan(
    scores: Sequence[Tensor], amount: Mapping[str, float], rounding: Rounding, places: Sequence[Scored] = ()
) -> list[int]:
    """An explicit amount for each group or layer, `amount={"conv1": 0.5, …}`; groups and layers without one stay whole."""
    for name in amount:
        if name not in {place.name for place in places}:
            raise unknown_name("place", name, {place.name for place in places})
    shares = [amount.get(place.name, 0.0) for place in places]
    return [
        rounded(len(s) - math.floor(share * len(s) + 0.5), len(s), rounding if share else None)
        for s, share in zip(scores, shares, strict=True)
    ]
