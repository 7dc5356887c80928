"""The table of allocations, and the rounding that they share."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from penjing.registry import Registry

Rounding = int | Callable[[int], int] | None
"""Widths that the runtime likes: a multiple, or a function from the wanted number of units to the one to keep."""

Allocation = Callable[[Sequence[Tensor], float, Rounding], list[int]]
"""From the scores of each group's units and the amount to the number of units that each group keeps."""

allocations: Registry[Allocation] = Registry("allocation")


def rounded(kept: int, units: int, rounding: Rounding) -> int:
    """Returns how many of `units` to keep when `kept` were wanted: the nearest allowed number, at least one step."""
    if callable(rounding):
        kept = rounding(kept)
    elif rounding is not None:
        kept = max(rounding, rounding * math.floor(kept / rounding + 0.5))
    return min(max(kept, 1), units)
