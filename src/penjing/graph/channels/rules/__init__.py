"""What each ATen op does to the labels of channels: one small rule per op, in a file per family.

To add an op, write one function and decorate it with `@rule(op)`; if the op has constants that depend on a channel
count, one more with `@resize(op)`. An op without a rule pins whatever it touches, which is always safe.
"""

from penjing.graph.channels.rules import (
    attention,
    convolution,
    creation,
    cutting,
    elementwise,
    indexing,
    normalization,
    products,
    recurrent,
    reduction,
    shaping,
    spatial,
)
from penjing.graph.channels.rules.table import (
    FREE,
    RESIZES,
    RULES,
    TILED,
    Axes,
    Axis,
    Labelling,
    Resizing,
    Unlabelled,
    Value,
    fixed,
    resize,
    rule,
)

__all__ = [
    "FREE",
    "RESIZES",
    "RULES",
    "TILED",
    "Axes",
    "Axis",
    "Labelling",
    "Resizing",
    "Unlabelled",
    "Value",
    "fixed",
    "resize",
    "rule",
]

_FAMILIES = (
    attention,
    convolution,
    creation,
    cutting,
    elementwise,
    indexing,
    normalization,
    products,
    recurrent,
    reduction,
    shaping,
    spatial,
)
