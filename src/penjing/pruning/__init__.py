"""Pruning: criterion × granularity × allocation × schedule, each a table of independent choices."""

from penjing.pruning._gradual import Gradual
from penjing.pruning._prune import prune
from penjing.pruning.allocations import allocations
from penjing.pruning.criteria import criteria
from penjing.pruning.granularities import granularities
from penjing.pruning.schedules import schedules

__all__ = ["Gradual", "allocations", "criteria", "granularities", "prune", "schedules"]
