"""How many units go, and where."""

from penjing.prune.allocations._global import global_
from penjing.prune.allocations._registry import allocations, at_least
from penjing.prune.allocations._uniform import uniform

__all__ = ["allocations", "at_least", "global_", "uniform"]
