"""What stays in floating point though it multiplies or reads parameters, and why: the plan's records of it.

A record has the keys of every other and "reason", one of `REASONS`, for programs; its "setting" says the same to people.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx

from penjing.capabilities import Capabilities, Placement
from penjing.graph import Graph
from penjing.graph.cost import Row
from penjing.graph.ops import LAYERS, RECURRENT
from penjing.graph.patterns import matches
from penjing.quantize._choices import FLOAT
from penjing.quantize._placement import Placed, is_float
from penjing.quantize._places import place_of

REASONS = {
    "slower": "measured faster in floating point",
    "asked": "stays in floating point as asked",
    "unknown": "nothing is known of {op}, which reads parameters",
    "range": "no range is found at run time for {op}",
    "dtype": "its weight is in {dtype}; only float32 is rounded",
    "computed": "its weight is computed while it runs, so it can't be stored in integers",
    "input": "what it reads isn't float32",
    "operands": "{target} runs {op} in floating point with operands such as these",
    "readers": "what reads the output of {op} computes in floating point",
    "inside": "its activations are inside of the op",  # of a recurrent layer, whose own record says what is stored how
    "kernel": "{target} has no integer kernel for {op}",
}
"""By code; what each says, with the op, the target's name and the weight's type."""


def kept_in_float(
    graph: Graph,
    placed: Placed,
    used: Placement,
    target: Capabilities,
    is_excluded: Callable[[fx.Node], bool],
    in_float: Sequence[str],
) -> list[dict[str, Any]]:
    """Returns the plan's records of what stays in floating point.

    Args:
        graph: in floating point, as it was placed; nothing is inserted yet.
        placed: where integers will be.
        used: the part of the target's placement that was used.
        target: all that it can do.
        is_excluded: says what the user left in floating point.
        in_float: patterns of what was measured to be faster in floating point.
    """
    nodes, active = {node.name: node for node in graph.program.graph.nodes}, set(placed.integer)
    taken = {place_of(layer) for layer in placed.layers}
    found: dict[str, dict[str, Any]] = {}
    for row in graph.cost().rows:
        node = nodes[row.node]
        if node in active or not _matters(row, node, used) or (node.target in RECURRENT and not is_excluded(node)):
            continue
        code = _reason(graph, row, node, used, target, is_excluded, in_float)
        place = place_of(node) if node.target in LAYERS | RECURRENT else row.module or row.node
        if place in taken:  # an op beside a layer in few bits, in one module
            place = f"{place} ({row.op})"
        setting = REASONS[code].format(op=row.op, target=target.name, dtype=", ".join(_dtypes(graph, node)))
        record = {"place": place, "technique": "quantize", "setting": setting, "before": FLOAT, "after": FLOAT}
        found.setdefault(place, {**record, "reason": code})
    return list(found.values())


def _matters(row: Row, node: fx.Node, used: Placement) -> bool:
    """Tells whether an op multiplies, or reads parameters and isn't among those that the target computes in integers."""
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
    if node.target in target.placement.layers or node.target in used.layers:
        return _of_layer(graph, node, used)
    if node.target not in used.integer and node.target in target.placement.integer:
        return "range"
    if node.target in used.integer:
        return "readers" if used.integer[node.target](node) else "operands"
    return "kernel"


def _of_layer(graph: Graph, layer: fx.Node, used: Placement) -> str:
    """Says why an op that the target computes in integers stays in floating point."""
    weight: Any = layer.args[1]
    if layer.target not in used.layers:
        return "range"
    if weight.op != "get_attr":
        return "computed"
    if graph.tensor(str(weight.target)).dtype != torch.float32:
        return "dtype"
    return "operands" if is_float(layer.args[0]) else "input"


def _dtypes(graph: Graph, node: fx.Node) -> Iterator[str]:
    """Yields the types of the floating-point tensors that an op reads."""
    read = [graph.tensor(str(n.target)).dtype for n in node.all_input_nodes if n.op == "get_attr"]
    yield from dict.fromkeys(str(dtype).removeprefix("torch.") for dtype in read if dtype.is_floating_point)
