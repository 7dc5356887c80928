"""Weights that equal what their quantiser makes of them."""

import copy
from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph import straight_through
from penjing.graph.graph import Graph


def rounded(graph: Graph) -> Graph:
    """Returns a copy in which each weight behind a quantise/dequantise pair has the value that comes out of the pair.

    The graph computes the same. What is lost is the remainder that further training would have used. A weight that
    something else than one pair reads stays as it is.
    """
    other = copy.deepcopy(graph)
    readers: dict[int, list[fx.Node]] = {}
    for node in other.program.graph.find_nodes(op="get_attr"):
        readers.setdefault(id(other.tensor(str(node.target))), []).extend(node.users)
    for users in readers.values():
        if len(users) == 1 and (pair := _pair(users[0])):
            quantize, dequantize = pair
            weight = other.tensor(str(quantize.args[0].target))
            with torch.no_grad():
                weight.copy_(_run(other, dequantize, _run(other, quantize, weight)))
    return other


def _pair(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Returns a weight's quantise node and the dequantise node behind it, if their grids are constants."""
    users = list(node.users)
    if len(users) != 1 or not _is(node, "quantize") or not _is(users[0], "dequantize"):
        return None
    given = {*node.all_input_nodes, *users[0].all_input_nodes} - {node}
    return (node, users[0]) if node.args[0] in given and all(n.op == "get_attr" for n in given) else None


def _is(node: fx.Node, verb: str) -> bool:
    target = _target(node)
    return isinstance(target, torch._ops.OpOverload) and target._schema.name.startswith(
        f"quantized_decomposed::{verb}_per_"
    )


def _target(node: fx.Node) -> Any:
    return straight_through.swap(node.target, training=False)


def _run(graph: Graph, node: fx.Node, first: Tensor) -> Tensor:
    """Calls a node's op with the tensors that its arguments name and with `first` as its first argument."""
    args = [graph.tensor(str(a.target)) if isinstance(a, fx.Node) else a for a in node.args[1:]]
    result: Tensor = _target(node)(first, *args, **node.kwargs)
    return result
