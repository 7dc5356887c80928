"""A network as parts that run one behind the other: what flows from one to the next, and each part as a graph."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from penjing.errors import PenjingError
from penjing.graph.graph import Graph
from penjing.graph.inputs import Input, Signature
from penjing.graph.sources import computed_from_inputs

ROUNDING = "quantized_decomposed"  # namespace of the ops that round values to a grid


def rounded_value(node: fx.Node) -> fx.Node:
    """Returns the value that layers behind `node` read: what its quantiser makes of it, where it has one."""
    for user in node.users:
        if _rounds(user):
            return next((one for one in user.users if _rounds(one)), node)
    return node


def crossing(graph: Graph, end: str, outputs: Sequence[fx.Node]) -> list[str]:
    """Returns the names of the values that are computed up to a node, and that the rest of the network reads.

    A quantiser behind the node belongs to what comes before: the value that crosses is then the one on the grid.

    Args:
        graph: the network.
        end: name of the node.
        outputs: what the rest computes in the end.

    Raises:
        PenjingError: the rest reads a size that was computed before, which is no tensor, or nothing at all.
    """
    nodes = list(graph.program.graph.nodes)
    flows, needed = computed_from_inputs(graph.program), ancestors(outputs)
    last = next(place for place, node in enumerate(nodes) if node.name == end)
    before = {node for node in nodes[: last + 1] if node in flows}
    for node in nodes[last + 1 :]:
        if _rounds(node) and node in flows and all(one in before for one in node.all_input_nodes if one in flows):
            before.add(node)
    rest = {node for node in needed if node in flows and node not in before}
    found = [node for node in nodes if node in before and any(user in rest for user in node.users)]
    sizes = [
        node for node in nodes[: last + 1] if node.op == "call_function" and not isinstance(node.meta["val"], Tensor)
    ]
    odd = [node.name for node in sizes if any(user in rest for user in node.users)]
    if odd or not found or not set(outputs) <= rest:
        why = (
            f"what follows reads the size '{odd[0]}', which is computed before"
            if odd
            else "nothing follows that reads it"
        )
        raise PenjingError(f"The network can't be cut at '{end}': {why}.")
    return [node.name for node in found]


def ancestors(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """Returns some nodes and all that they are computed from."""
    found, left = set[fx.Node](), list(nodes)
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += node.all_input_nodes
    return found


def part(
    graph: Graph,
    entries: Sequence[str],
    exits: Sequence[str],
    out_spec: pytree.TreeSpec,
    examples: Mapping[str, Tensor],
) -> Graph:
    """Returns a graph of what lies between some values of a network; its tensors are copies.

    An entry that comes from a quantiser is rounded to its grid once more, which changes nothing and lets runtimes compute with
    integers on both sides of the cut.

    Args:
        graph: the network.
        entries: names of the nodes whose values the part takes; none for the inputs of the network.
        exits: names of the nodes whose values the part returns.
        out_spec: how these are nested.
        examples: the values of the entries for an example of the network's inputs.
    """
    piece = copy.deepcopy(graph)
    nodes = piece.program.graph
    by_name: dict[str, fx.Node] = {node.name: node for node in nodes.nodes}
    given = [node for node in nodes.nodes if node.op == "placeholder"]
    output: Any = nodes.output_node()
    output.args = (tuple(by_name[name] for name in exits),)
    if entries:
        first = next(iter(nodes.nodes))
        inputs: dict[str, fx.Node] = {}
        for name in entries:
            with nodes.inserting_before(first):
                inputs[name] = nodes.create_node("placeholder", f"{name}_in", name=f"{name}_in")
        rounded = {name: by_name[name].args[0] for name in entries if _rounds(by_name[name])}
        for name in (*(one for one in entries if one not in rounded), *rounded):
            if name in rounded:
                rounded[name].update_arg(0, inputs[name])  # type: ignore[union-attr]
            else:
                by_name[name].replace_all_uses_with(inputs[name])
        specs = [_input(f"{name}_in", by_name[name], examples[name], graph.batch is None) for name in entries]
        names = tuple(one.name for one in specs)
        spec = pytree.tree_structure(((0,) * len(names), {}))
        piece.signature = Signature(spec, tuple(specs), names, names)
        nodes.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
        for node in given:
            nodes.erase_node(node)
    piece.out_spec = out_spec
    used = ancestors([output])
    for name in [name for name in piece.masks if name not in {str(one.target) for one in used if one.op == "get_attr"}]:
        del piece.masks[name]
    return piece.refresh()


def _rounds(node: fx.Node) -> bool:
    return getattr(node.target, "namespace", "") == ROUNDING


def _input(name: str, node: fx.Node, example: Tensor, free: bool) -> Input:
    """Describes an entry: its free axes are those of the node's value."""
    shape: Sequence[Any] = node.meta["val"].shape
    names = [str(size.node.expr) if isinstance(size, torch.SymInt) and free else "" for size in shape]
    return Input.of(name, example, frozenset(axis for axis, one in enumerate(names) if one), tuple(names))
