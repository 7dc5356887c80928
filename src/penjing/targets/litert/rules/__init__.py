"""How each ATen op is written into a `.tflite` file: one small function per op, or one line for families of them.

A rule gets the lowering and the graph's node. An op without a rule is written in the simpler ops that PyTorch makes it of; where
there are none, lowering names the op.
"""

from penjing.targets.litert.rules import (  # noqa: F401  registers the rules
    layers,
    moves,
    pointwise,
    quantisation,
    recurrent,
    reductions,
    written_out,
)
from penjing.targets.litert.rules._table import find

__all__ = ["find"]
