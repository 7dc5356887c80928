"""Finds the node of the graph from which an exported node was made.

Exporting traces the graph again and so loses where a node came from. The exported program has the same ops in the same
order, so nodes are matched by position, and the match is checked.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from penjing.graph import Graph

KEY = "penjing"
STANDS_FOR = "stands_for"  # key under which a rewritten node keeps the name of the node that it replaces


def _calls(nodes: fx.Graph) -> list[fx.Node]:
    """Returns the calls of ATen ops, without those that only assert something or ask for a size."""
    ignored = ("sym_size", "_assert", "sym_constrain")
    return [
        node
        for node in nodes.nodes
        if isinstance(node.target, torch._ops.OpOverload) and not any(word in str(node.target) for word in ignored)
    ]


def mark_origins(exported: ExportedProgram, graph: Graph) -> dict[str, str]:
    """Marks each exported node with the name of the graph's node that it comes from.

    Returns:
        The path of the user's module for each of the graph's nodes, by the node's name; empty if the exported ops aren't
        those of the graph.
    """
    ours, theirs = _calls(graph.program.graph), _calls(exported.graph)
    if [node.target for node in ours] != [node.target for node in theirs]:
        return {}  # names in the file and in profiles then lack the module; nothing else depends on the marks
    for node, copied in zip(ours, theirs, strict=True):
        copied.meta["custom"] = {KEY: _name(node)}
    return {_name(node): node.meta.get("module", "") for node in ours}


def _name(node: fx.Node) -> str:
    return str(node.meta.get(STANDS_FOR, node.name))
