"""Allocations: how the amount that goes is spread over the groups or layers of a model."""

from penjing.pruning.allocations._erk import erk
from penjing.pruning.allocations._global import as_they_are, by_largest, by_mean, by_norm, global_
from penjing.pruning.allocations._lamp import lamp
from penjing.pruning.allocations._layer_share import layer_share
from penjing.pruning.allocations._plan import plan
from penjing.pruning.allocations._registry import Rounding, allocations, at_least
from penjing.pruning.allocations._sensitivity import sensitivity
from penjing.pruning.allocations._threshold import threshold
from penjing.pruning.allocations._uniform import uniform

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
    "layer_share",
    "plan",
    "sensitivity",
    "threshold",
    "uniform",
]
