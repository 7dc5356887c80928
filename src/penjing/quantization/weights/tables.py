"""Embeddings, whose tables are stored in few bits: which ones can be, on the grid that was chosen for them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import fx

from penjing.capabilities import Largest, Numbers
from penjing.graph import Graph
from penjing.graph.ops import LAYERS
from penjing.quantization.placement.sites import Placed
from penjing.quantization.weights.choices import Choice
from penjing.quantization.weights.places import weight_of


def holds(tables: Numbers, choice: Choice) -> bool:
    """Tells whether a target looks rows up in tables on this grid, with this grain."""
    largest: Largest = tables.tables.get(choice.grain.kind, {})
    name = choice.grid.entry.name
    return name in largest and choice.grid.number <= largest[name]


def with_own_tables(
    graph: Graph, placed: Placed, choice_of: Callable[[fx.Node], Choice | None], usual: Choice, numbers: Numbers
) -> Placed:
    """Returns the placement without the tables that stay in floating point because of their grid.

    A table that a layer multiplies by, too, follows that layer's choice. Of a table whose grid the target doesn't look up
    in, all readers keep the table in floating point.

    Args:
        graph: the float graph.
        placed: the decision for all tables that could become integers.
        choice_of: gives the grid and grain of a layer or an embedding.
        usual: the choice for layers that nobody named.
        numbers: the grids of the target.
    """
    multiplied = {id(graph.tensor(weight_of(layer))): layer for layer in placed.layers if layer.target in LAYERS}

    def is_held(table: fx.Node) -> bool:
        choice = choice_of(multiplied.get(id(graph.tensor(weight_of(table))), table))
        # Groups that were chosen for all layers may not divide a table's rows; those that were chosen for it must.
        odd = choice == usual and choice is not None and not choice.grain.fits(graph.tensor(weight_of(table)))
        return choice is not None and not odd and holds(numbers, choice)

    return replace(placed, tables=tuple(table for table in placed.tables if is_held(table)))


def in_order(graph: Graph, nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Returns nodes in the order of execution."""
    wanted = set(nodes)
    return [node for node in graph.program.graph.nodes if node in wanted]
