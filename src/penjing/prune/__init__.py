"""Pruning: criterion × granularity × allocation, each a table of independent choices."""

from penjing.prune._prune import prune
from penjing.prune.allocations import allocations
from penjing.prune.criteria import criteria
from penjing.prune.granularities import granularities

__all__ = ["allocations", "criteria", "granularities", "prune"]
