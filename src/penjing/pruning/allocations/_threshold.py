"""An absolute limit for scores."""

import math
from collections.abc import Sequence

from torch import Tensor

from penjing.errors import PenjingError
from penjing.pruning.allocations._registry import Rounding, Scored, allocations, rounded


def _read(name: str) -> float | None:
    kind, colon, number = name.partition(":")
    if kind != "threshold" or not colon:
        return None
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise PenjingError(f"allocation='{name}': what follows the colon must be a number.")
    return limit


@allocations.register(
    source="Han et al., Learning both Weights and Connections, 2015", read=_read, example="threshold:0.01"
)
def threshold(scores: Sequence[Tensor], amount: float, rounding: Rounding, places: Sequence[Scored] = ()) -> list[int]:
    """An absolute limit ("threshold:0.01"): units with lower scores go, except the best of each group."""
    return [rounded(int((score >= amount).sum()), len(score), rounding) for score in scores]
