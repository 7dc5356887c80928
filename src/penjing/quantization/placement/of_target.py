"""Chooses the part of a target's placement that is used, and checks that no layer stays in floating point where none may."""

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
    """Returns the record of what the target can do, and checks that `placement` and `in_float` fit together and fit it.

    Raises:
        PenjingError: a name is unknown; or placement='integer' is asked for together with `in_float`, or for a target that
            has no integer arithmetic.
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
    """Returns the target with the part of its placement that is used.

    Where activations have constant ranges, the whole placement is used. Where ranges are found at run time, only the layers
    are used for which the target can do so. Where only weights are rounded, the layers whose weights its files hold in few
    bits are used. A simulation for a target without integer arithmetic rounds the weights and the inputs of the latter.

    Raises:
        PenjingError: ranges should be found at run time, and the target can't do so for any layer.
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
    """Checks that every op that multiplies, or may do so, computes in integers, unless the user excluded it.

    Raises:
        PenjingError: an op doesn't; the message names the op and its module.
    """
    nodes = {node.name: node for node in graph.program.graph.nodes}
    active = set(placed.integer)
    left = [row for row in graph.cost().rows if (row.macs or not row.counted) and nodes[row.node] not in active]
    named = [f"'{row.op}' in '{row.module or row.node}'" for row in left if not is_excluded(nodes[row.node])]
    if named:
        raise PenjingError(
            f"placement='integer' leaves no layer in floating point, but {target.name} computes "
            f"{', '.join(named[:5])}{' and others' if len(named) > 5 else ''} in floating point there. "
            "Exclude the layers that may do so, or use placement='fastest'."
        )
