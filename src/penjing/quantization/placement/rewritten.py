"""Rewrites a graph so that more of it can be integer, and decides which of its values are rounded."""

from collections.abc import Callable

from torch import fx

from penjing.capabilities import Placement
from penjing.graph import Graph
from penjing.quantization.placement._rewrites import GATED, move_up
from penjing.quantization.placement.sites import Placed, place


def place_rewritten(graph: Graph, placement: Placement, is_excluded: Callable[[fx.Node], bool]) -> Placed:
    """Rewrites the graph in place, without changing any value, and returns which values the placement rounds in it."""
    placed = place(graph, placement, is_excluded)
    if not placed.rewritable and not placed.late_clips:
        return placed
    for node in placed.rewritable:
        GATED[node.target](node)
    for clip, source in placed.late_clips:
        move_up(clip, source)
    return place(graph.refresh(), placement, is_excluded)
