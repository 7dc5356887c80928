"""Rules for the labels of channels: one small rule per ATen op, in a file per family of ops.

To add an op, write one function and decorate it with `@rule(op)`. If the op has constants that depend on a number of
channels, write a second one with `@resize(op)`. An op without a rule pins all axes that it reads or makes, which is
always safe.
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
    Uncovered,
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
    "Uncovered",
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
