"""How many units go, and where."""

from penjing.prune.allocations._erk import erk
from penjing.prune.allocations._global import global_
from penjing.prune.allocations._lamp import lamp
from penjing.prune.allocations._plan import plan
from penjing.prune.allocations._registry import allocations, at_least
from penjing.prune.allocations._threshold import threshold
from penjing.prune.allocations._uniform import uniform

__all__ = ["allocations", "at_least", "erk", "global_", "lamp", "plan", "threshold", "uniform"]
