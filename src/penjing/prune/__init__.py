"""Pruning: criterion × granularity × allocation × schedule, each a table of independent choices."""

from penjing.prune._gradual import Gradual
from penjing.prune._prune import prune
from penjing.prune.allocations import allocations
from penjing.prune.criteria import criteria
from penjing.prune.granularities import granularities
from penjing.prune.schedules import schedules

__all__ = ["Gradual", "allocations", "criteria", "granularities", "prune", "schedules"]
