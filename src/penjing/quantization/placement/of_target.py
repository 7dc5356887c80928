"""What is used of a target's placement: which layers may stay in floating point, and the error where one must but mustn't."""

from collections.abc import Callable
from dataclasses import replace

from torch import fx

from penjing.capabilities import Capabilities, find
from penjing.errors import PenjingError, unknown_name
from penjing.graph import Graph
from penjing.quantization.placement.dynamic import DYNAMIC, for_dynamic
from penjing.quantization.placement.numbers import check_integers
from penjing.quantization.placement.sites import Placed
from penjing.quantization.settings import QuantizationSettings

INTEGER, FASTEST = "integer", "fastest"


def checked_target(given: QuantizationSettings) -> Capabilities:
    """Returns what the target can do, and checks what may stay in floating point for it.

    Raises:
        PenjingError: a name is unknown, or layers are to stay in floating point where none may, or must where they mustn't.
    """
    target = find(given.target)
    if given.placement not in (INTEGER, FASTEST):
        raise unknown_name("placement", given.placement, (INTEGER, FASTEST))
    if given.placement == INTEGER and given.in_float:
        raise PenjingError("placement='integer' leaves no layer in floating point: give in_float= with 'fastest'.")
    if given.placement == INTEGER:
        check_integers(target)
    return target


def used_of(target: Capabilities, activations: str | None, simulate: bool) -> Capabilities:
    """Returns what is used of a target.

    That is all of it where activations have constant ranges; the layers whose inputs' ranges it finds at run time where
    they are dynamic; and what its files hold in few bits where weights alone are rounded. A simulation for a target without
    integers rounds the weights of these layers, and what they read.

    Raises:
        PenjingError: ranges are to be found at run time, and it can't for any layer.
    """
    if activations == DYNAMIC:
        return for_dynamic(target)
    placement = target.placement
    if activations is None:
        return replace(target, placement=replace(placement, layers=placement.weights_alone))
    if simulate and not target.has_integers:
        held = placement.weights_alone
        return replace(target, placement=replace(placement, layers=held, float_output=frozenset(held)))
    return target


def check_all_integer(
    graph: Graph, placed: Placed, target: Capabilities, is_excluded: Callable[[fx.Node], bool]
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
            f"placement='integer' leaves no layer in floating point, but {target.name} computes "
            f"{', '.join(named[:5])}{' and others' if len(named) > 5 else ''} in floating point there. "
            "Exclude what may, or use placement='fastest'."
        )
