"""Pruning: criterion × granularity × allocation × schedule, each a table of independent choices."""

from penjing.pruning._gradual import Gradual
from penjing.pruning._prune import check_choices, prune, prune_with
from penjing.pruning.allocations import allocations
from penjing.pruning.criteria import criteria
from penjing.pruning.granularities import granularities
from penjing.pruning.schedules import schedules
from penjing.pruning.settings import PruningSettings

__all__ = [
    "Gradual",
    "PruningSettings",
    "allocations",
    "check_choices",
    "criteria",
    "granularities",
    "prune",
    "prune_with",
    "schedules",
]
