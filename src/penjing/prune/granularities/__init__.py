"""Which weights stand or fall together."""

from penjing.prune.granularities._filter import filter_
from penjing.prune.granularities._layer import layer
from penjing.prune.granularities._registry import granularities

__all__ = ["filter_", "granularities", "layer"]
