"""How many units go, and where."""

from penjing.prune.allocations._erk import erk
from penjing.prune.allocations._global import as_they_are, by_largest, by_mean, by_norm, global_
from penjing.prune.allocations._lamp import lamp
from penjing.prune.allocations._plan import plan
from penjing.prune.allocations._registry import Rounding, allocations, at_least
from penjing.prune.allocations._sensitivity import sensitivity
from penjing.prune.allocations._threshold import threshold
from penjing.prune.allocations._uniform import uniform

__all__ = [
    "Rounding",
    "allocations",
    "as_they_are",
    "at_least",
    "by_largest",
    "by_mean",
    "by_norm",
    "erk",
    "global_",
    "lamp",
    "plan",
    "sensitivity",
    "threshold",
    "uniform",
]
