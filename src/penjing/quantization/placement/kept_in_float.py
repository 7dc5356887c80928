"""Finds the ops that multiply or read parameters and still stay in floating point, and why they do."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx

from penjing.capabilities import Capabilities, Placement
from penjing.graph import Graph, Place
from penjing.graph.cost import Row
from penjing.graph.ops import LAYERS, LOOKUPS, RECURRENT
from penjing.graph.patterns import matches
from penjing.quantization.placement.sites import Placed, is_float
from penjing.quantization.weights.places import place_of


def kept_in_float(
    graph: Graph,
    placed: Placed,
    used: Placement,
    target: Capabilities,
    is_excluded: Callable[[fx.Node], bool],
    in_float: Sequence[str],
) -> dict[Place, dict[str, str]]:
    """Returns the places that stay in floating point, each with a code for the reason and the facts that explain it.

    The codes are:
        "slower": integers were measured to be slower there.
        "asked": the user excluded the place.
        "unknown": no rule knows the op.
        "range": the target finds no range at run time for the op.
        "dtype": the weight isn't float32.
        "computed": the weight is no parameter.
        "input": the input isn't float32.
        "operands": the target runs the op in floating point with such operands.
        "readers": all readers of the op's output compute in floating point.
        "kernel": the target has no integer kernel for the op.
        "table": the target holds no such table in few bits, or something else reads it in floating point.
        "inside": the activations are inside of a recurrent layer's op; another function gives this code.
    `penjing.report.words` turns a code into a sentence.

    Args:
        graph: the float graph for which `placed` was found; nothing is inserted yet.
        placed: the decision which values are rounded.
        used: the part of the target's placement that was used.
        target: everything that the target can do.
        is_excluded: tells which nodes the user left in floating point.
        in_float: patterns of layers that were measured to be faster in floating point.
    """
    nodes = {node.name: node for node in graph.program.graph.nodes}
    active = {*placed.integer, *placed.tables}
    taken = {place_of(layer) for layer in placed.layers}
    found: dict[Place, dict[str, str]] = {}
    for row in graph.cost().rows:
        node = nodes[row.node]
        if node in active or not _matters(row, node, used) or (node.target in RECURRENT and not is_excluded(node)):
            continue
        code = _reason(graph, row, node, used, target, is_excluded, in_float)
        is_layer = node.target in LAYERS | LOOKUPS | RECURRENT and place_of(node) not in taken
        place = Place("weight", place_of(node)) if is_layer else Place("value", row.module or row.node)
        reason = {"reason": code, "op": row.op, "target": target.name}
        dtypes = ", ".join(_dtypes(graph, node)) if code == "dtype" else ""
        found.setdefault(place, reason | ({"dtype": dtypes} if dtypes else {}))
    return found


def _matters(row: Row, node: fx.Node, used: Placement) -> bool:
    """Tells whether an op multiplies, or reads parameters and isn't an op that the target computes in integers."""
    return bool(row.macs) or (bool(row.params) and node.target not in used.integer)


def _reason(
    graph: Graph,
    row: Row,
    node: fx.Node,
    used: Placement,
    target: Capabilities,
    is_excluded: Callable[[fx.Node], bool],
    in_float: Sequence[str],
) -> str:
    if any(matches(path, in_float) for path in (row.module or row.node, place_of(node))):
        return "slower"
    if is_excluded(node):
        return "asked"
    if not row.counted:
        return "unknown"
    if node.target in used.tables:
        return "table"
    if node.target in target.placement.layers or node.target in used.layers:
        return _of_layer(graph, node, used)
    if node.target not in used.integer and node.target in target.placement.integer:
        return "range"
    if node.target in used.integer:
        return "readers" if used.integer[node.target](node) else "operands"
    return "kernel"


def _of_layer(graph: Graph, layer: fx.Node, used: Placement) -> str:
    """Returns the code of the reason why a layer stays in floating point whose op the target computes in integers."""
    weight: Any = layer.args[1]
    if layer.target not in used.layers:
        return "range"
    if weight.op != "get_attr":
        return "computed"
    if graph.tensor(str(weight.target)).dtype != torch.float32:
        return "dtype"
    return "operands" if is_float(layer.args[0]) else "input"


def _dtypes(graph: Graph, node: fx.Node) -> Iterator[str]:
    """Yields the dtypes of the floating-point parameters that an op reads."""
    read = [graph.tensor(str(n.target)).dtype for n in node.all_input_nodes if n.op == "get_attr"]
    yield from dict.fromkeys(str(dtype).removeprefix("torch.") for dtype in read if dtype.is_floating_point)
