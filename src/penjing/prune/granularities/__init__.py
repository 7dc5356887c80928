"""Which weights stand or fall together: one granularity per file."""

from penjing.prune.granularities._block import block
from penjing.prune.granularities._element import element
from penjing.prune.granularities._filter import filter_
from penjing.prune.granularities._head import head
from penjing.prune.granularities._kernel import kernel
from penjing.prune.granularities._layer import layer
from penjing.prune.granularities._n_m import n_m
from penjing.prune.granularities._pattern import pattern
from penjing.prune.granularities._patterns import patterns
from penjing.prune.granularities._rectangle import rectangle
from penjing.prune.granularities._registry import granularities
from penjing.prune.granularities._vector import vector

__all__ = [
    "block",
    "element",
    "filter_",
    "granularities",
    "head",
    "kernel",
    "layer",
    "n_m",
    "pattern",
    "patterns",
    "rectangle",
    "vector",
]
