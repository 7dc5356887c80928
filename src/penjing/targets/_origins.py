"""Finds the node of the graph from which an exported node was made.

Exporting traces the graph again and so loses where a node came from. Training IR survives that op by op, so nodes are
matched in order, and the match is checked.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from penjing.graph import Graph

KEY = "penjing"
STANDS_FOR = "stands_for"  # key under which a rewritten node keeps the name of the node that it replaces


def _calls(nodes: fx.Graph) -> list[fx.Node]:
    """Returns the calls of ATen ops, without what only asserts or asks for sizes."""
    ignored = ("sym_size", "_assert", "sym_constrain")
    return [
        node
        for node in nodes.nodes
        if isinstance(node.target, torch._ops.OpOverload) and not any(word in str(node.target) for word in ignored)
    ]


def mark_origins(exported: ExportedProgram, graph: Graph) -> dict[str, str]:
    """Marks exported nodes with the graph's node that they stem from; returns each such node's user module."""
    ours, theirs = _calls(graph.program.graph), _calls(exported.graph)
    if [node.target for node in ours] != [node.target for node in theirs]:
        return {}  # names then tell less, nothing else depends on them
    for node, copied in zip(ours, theirs, strict=True):
        copied.meta["custom"] = {KEY: _name(node)}
    return {_name(node): node.meta.get("module", "") for node in ours}


def _name(node: fx.Node) -> str:
    return str(node.meta.get(STANDS_FOR, node.name))
