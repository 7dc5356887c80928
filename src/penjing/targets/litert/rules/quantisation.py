"""Ops that round values to integers, and that make real numbers of them again."""

from torch import fx

from penjing.targets.litert._lowering import DEQUANTIZE, QUANTIZE, Lowering, NoRule, grid_of
from penjing.targets.litert.rules._table import rule


@rule(QUANTIZE)
def quantize(lowering: Lowering, node: fx.Node) -> None:
    """Writes QUANTIZE, from floats or from integers on another grid; nothing where the value is on this grid already."""
    source = lowering.arguments(node)[0]
    grid = grid_of(node)
    if grid is None:
        raise NoRule(node, f"{node.target} to {node.args[5]}")
    known = lowering.integers(source)
    if known is not None and known.grid == grid:
        lowering.give_rounded(node, known)
        return
    held = known or lowering.held(source)
    made = lowering.make(lowering.file.shape(held.index), "int8", held.order, grid)
    lowering.file.op("QUANTIZE", [held.index], [made.index], kind="QuantizeOptions")
    lowering.give_rounded(node, made)


@rule(DEQUANTIZE)
def dequantize(lowering: Lowering, node: fx.Node) -> None:
    """Writes nothing yet: who needs real numbers gets a DEQUANTIZE."""
    held = lowering.integers(node.args[0])
    if held is None:
        raise NoRule(node)
    lowering.give(node, held)
