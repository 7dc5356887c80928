"""Placements by name: which layers may stay in floating point, and the error where one must but mustn't."""

from collections.abc import Callable, Sequence

from torch import fx

from penjing.errors import PenjingError, unknown_name
from penjing.graph import Graph
from penjing.quantize._onnxruntime import ONNXRUNTIME
from penjing.quantize._placement import Placed, Placement

INTEGER, FASTEST = "integer", "fastest"


def find_placement(given: Placement | str, in_float: Sequence[str]) -> Placement:
    """Returns a target's placement: the one given, or ONNX Runtime's by the name of what may stay in floating point.

    Raises:
        PenjingError: the name is unknown, or layers are to stay in floating point where none may.
    """
    if isinstance(given, Placement):
        return given
    if given not in (INTEGER, FASTEST):
        raise unknown_name("placement", str(given), (INTEGER, FASTEST))
    if given == INTEGER and in_float:
        raise PenjingError("placement='integer' leaves no layer in floating point: give in_float= with 'fastest'.")
    return ONNXRUNTIME


def check_all_integer(
    graph: Graph, placed: Placed, placement: Placement, is_excluded: Callable[[fx.Node], bool]
) -> None:
    """Checks that everything that multiplies, or may do so, works in integers, but for what the user excluded.

    Raises:
        PenjingError: something doesn't; names it and its op.
    """
    nodes = {node.name: node for node in graph.program.graph.nodes}
    active = set(placed.integer)
    left = [row for row in graph.cost().rows if (row.macs or not row.counted) and nodes[row.node] not in active]
    named = [f"'{row.op}' in '{row.module or row.node}'" for row in left if not is_excluded(nodes[row.node])]
    if named:
        raise PenjingError(
            f"placement='integer' leaves no layer in floating point, but {placement.name} computes "
            f"{', '.join(named[:5])}{' and others' if len(named) > 5 else ''} in floating point there. "
            "Exclude what may, or use placement='fastest'."
        )
