"""Recurrent layers, whose matrices are stored in few bits and multiplied with floating-point activations.

Such a layer computes its activations inside of its op, where they can't be rounded.
"""

from collections.abc import Callable

from torch import fx

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.ops import RECURRENT
from penjing.quantization.grids import Rows
from penjing.quantization.weights.choices import Choice
from penjing.quantization.weights.laying import LaidWeight
from penjing.quantization.weights.places import matrices, place_of


def lay_recurrent(graph: Graph, choice_of: Callable[[fx.Node], Choice | None]) -> list[LaidWeight]:
    """Lays the chosen grids over the matrices of recurrent layers; the graph stays as it is.

    Raises:
        PenjingError: a grid can't be laid over a matrix, or recurrent layers share one.
    """
    found: dict[int, LaidWeight] = {}
    for node in graph.program.graph.nodes:
        choice = choice_of(node) if node.target in RECURRENT else None
        for path in matrices(graph, node) if choice is not None else ():
            assert choice is not None
            tensor = graph.tensor(path)
            if id(tensor) in found:
                raise PenjingError(f"Recurrent layers share '{path}'; leave them in floating point with exclude=….")
            found[id(tensor)] = _lay(graph, node, path, choice)
    return list(found.values())


def _lay(graph: Graph, node: fx.Node, path: str, choice: Choice) -> LaidWeight:
    weight = graph.tensor(path).detach()
    place = place_of(node)
    remedy = f'Give it a grid of its own, such as per_layer={{"{place}": "int8/channel"}}, or exclude=["{place}"].'
    if not choice.grain.fits(weight):
        raise PenjingError(
            f"The group doesn't divide the weights of '{path}' ({weight[0].numel()} per channel, {choice.grain.name}). "
            + remedy
        )
    mask = graph.masks.get(path)
    if mask is not None and not bool(mask.all()) and not choice.grid.entry.zero:
        raise PenjingError(
            f"'{path}' was pruned, and '{choice.grid.name}' has no zero to keep its weights at. {remedy}"
        )
    rows = Rows(choice.grain.rows(weight), None, bool((weight == 0).any()))
    return LaidWeight(place, path, (node,), choice, choice.grid.lay(rows))
