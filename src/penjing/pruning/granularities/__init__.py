"""Which weights stand or fall together: one granularity per file."""

from penjing.pruning.granularities._block import block
from penjing.pruning.granularities._element import element
from penjing.pruning.granularities._filter import filter_
from penjing.pruning.granularities._head import head
from penjing.pruning.granularities._kernel import kernel
from penjing.pruning.granularities._layer import layer
from penjing.pruning.granularities._n_m import n_m
from penjing.pruning.granularities._pattern import pattern
from penjing.pruning.granularities._patterns import patterns
from penjing.pruning.granularities._rectangle import rectangle
from penjing.pruning.granularities._registry import granularities
from penjing.pruning.granularities._vector import vector

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
