"""Removing units must be the same as zeroing every entry that carries them, wherever nothing averages over channels."""

import copy

import numpy as np
import torch
from torch.utils import _pytree as pytree

from penjing.graph import Channels, Graph, capture, channels, remove
from penjing.graph.capture.verify import close


def zeroed(graph: Graph, group, units) -> Graph:
    """Returns the same graph with zeros in every entry that carries one of the units."""
    graph = copy.deepcopy(graph)
    with torch.no_grad():
        for entry in group.entries:
            indices = torch.from_numpy(np.ascontiguousarray(entry.indices[units]).ravel())
            graph.tensor(entry.tensor).index_fill_(entry.axis, indices, 0)
    return graph


def some_units(group, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(group.units)[: max(1, group.units // 2)]


def check(model, *inputs, units="auto", exact=True) -> tuple[Graph, Channels, Graph]:
    """Captures a model, removes half of every group, one by one and all together, and compares with zeros.

    Returns the graph, its channels and the graph without half of its units. Without `exact` only shapes are compared.
    """
    graph = capture(model.eval(), inputs)
    found = channels(graph, units=units)
    gone = {i: some_units(group, i) for i, group in enumerate(found.groups) if group.units > 1}
    assert gone
    larger = [torch.cat([x, x.flip(0)[:1]]) for x in inputs]
    expected = graph
    for position, removed in gone.items():
        group = found.groups[position]
        expected = zeroed(expected, group, removed)
        if exact:
            assert close(
                remove(graph, found, {position: removed})(*inputs), zeroed(graph, group, removed)(*inputs), 1e-4
            ), group.name
    small = remove(graph, found, gone)
    if exact:
        assert close(small(*larger), expected(*larger), 1e-4)
    shapes = [[t.shape for t in pytree.tree_leaves(g(*larger))] for g in (small, graph)]
    assert shapes[0] == shapes[1]
    return graph, found, small


def share_left(graph: Graph, small: Graph) -> float:
    return sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in graph.parameters())
