"""Splits a network into parts: single layers or blocks."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph import Graph
from penjing.graph.clips import CLIPS
from penjing.graph.straight_through import ops
from penjing.quantization.rounding._parts import Span

aten = torch.ops.aten
PAIR = {ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default}
CHAIN = 3  # most layers of a block that is a plain sequence: as many as an inverted residual has
MOST_LAYERS = 8  # most layers of a block: the layers of a larger one become separate parts


def layers(graph: Graph, rounded: Sequence[fx.Node]) -> list[Span]:
    """Returns each layer, with the clip behind it, as a part of its own.

    Args:
        graph: the quantised graph.
        rounded: the layers whose weights are learned, in order of execution.
    """
    known = _constants(graph)
    return [_layer(node, known) for node in rounded]


def products(graph: Graph, rounded: Sequence[fx.Node]) -> list[Span]:
    """Returns each layer, without the clip behind it, as a separate part; the arguments are those of `layers`."""
    known = _constants(graph)
    return [_span([node], [node], known, rows=node.target is aten.linear.default) for node in rounded]


def blocks(graph: Graph, rounded: Sequence[fx.Node]) -> list[Span]:
    """Splits the graph where exactly one tensor crosses, with one row per sample; the arguments are those of `layers`.

    The nodes between two such tensors form a residual block with its shortcut, an inception module, or another set of
    branches that join again. Up to three consecutive pieces of one layer each form a block together. A cut is made
    behind the tensor's clip and before the tensor is rounded. Where no such tensors exist, or more than eight layers
    lie between two of them, each layer is a separate part: in dense blocks, recurrences and networks of several heads.
    """
    known = _constants(graph)
    order = [node for node in graph.program.graph.nodes if node.op == "call_function" and node not in known]
    place = {node: index for index, node in enumerate(order)}
    ends = [order.index(node) for node in _cuts(graph, order, rounded)]
    found: list[Span] = []
    chain: list[list[fx.Node]] = []  # the nodes of consecutive pieces that have one layer each
    for start, end in pairwise([-1, *ends]):
        nodes = order[start + 1 : end + 1]
        count = sum(node in rounded for node in nodes)
        if count == 1:
            chain.append(nodes)
            continue
        found += _joined(chain, rounded, known)
        chain = []
        if count <= MOST_LAYERS:
            found.append(_span(nodes, rounded, known))
        else:
            found += [_layer(node, known) for node in nodes if node in rounded]
    found += _joined(chain, rounded, known)
    last = ends[-1] if ends else -1
    return found + [_layer(node, known) for node in rounded if place[node] > last]


def _joined(chain: Sequence[list[fx.Node]], rounded: Sequence[fx.Node], known: set[fx.Node]) -> Iterator[Span]:
    """Joins pieces of one layer each into blocks of up to `CHAIN`; cuts at the smallest tensor, among equals at the last."""
    left = list(chain)
    while left:
        sizes = [_size(nodes[-1]) for nodes in left[:CHAIN]]
        count = max(range(len(sizes)), key=lambda index: (-sizes[index], index)) + 1
        yield _span([node for nodes in left[:count] for node in nodes], rounded, known)
        left = left[count:]


def _size(node: fx.Node) -> int:
    """Returns the number of entries that a value has per sample."""
    sizes = node.meta["val"].shape[1:]
    return math.prod(_hint(size) for size in sizes)


def _hint(size: Any) -> int:
    """Returns a size as an int: for a dynamic size that of the example inputs, since comparing the symbol would fix it."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def _cuts(graph: Graph, order: Sequence[fx.Node], rounded: Sequence[fx.Node]) -> list[fx.Node]:
    """Returns the last node of each block; at most one lies between a layer and the next."""
    place = {node: index for index, node in enumerate(order)}
    last_read = {node: max((place.get(user, len(order)) for user in node.users), default=-1) for node in order}
    inputs = [node for node in graph.program.graph.nodes if node.op == "placeholder"]
    for node in inputs:
        last_read[node] = max((place.get(user, len(order)) for user in node.users), default=-1)
    batch = _batch(inputs)
    live = {node for node in inputs if last_read[node] >= 0}
    found: list[fx.Node] = []
    candidates: list[fx.Node] = []
    begun = False  # whether a layer stands behind the last cut
    for index, node in enumerate(order):
        if node in rounded:
            if begun and candidates:
                found.append(_best(candidates))
            begun, candidates = True, []
        live = {one for one in live if last_read[one] > index}
        if last_read[node] > index and not _is_count(node, batch):
            live.add(node)
        if live == {node} and _by_sample(node, batch) and node.target not in PAIR:  # the float network has none
            candidates.append(node)
    if begun and candidates:
        ends = [node for node in candidates if last_read[node] == len(order)]
        found += ends[-1:]  # the ops behind the last layer belong to its block
    return found


def _best(candidates: Sequence[fx.Node]) -> fx.Node:
    """Returns the first candidate whose value is rounded, else the last candidate."""
    rounding = ops.quantize_per_tensor.default
    return next((node for node in candidates if any(u.target is rounding for u in node.users)), candidates[-1])


def _layer(node: fx.Node, known: set[fx.Node]) -> Span:
    nodes = [node]
    while len(nodes[-1].users) == 1 and (user := next(iter(nodes[-1].users))).target in CLIPS:
        nodes.append(user)
    return _span(nodes, [node], known, rows=node.target is aten.linear.default)


def _span(nodes: Sequence[fx.Node], rounded: Sequence[fx.Node], known: set[fx.Node], rows: bool = False) -> Span:
    inner, output = set(nodes), nodes[-1]
    outer = [source for node in nodes for source in node.all_input_nodes if source not in inner | known]
    inside = tuple(node for node in nodes if node in rounded)
    needed = {output}
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return Span(
        tuple(node for node in nodes if node in needed),
        tuple(dict.fromkeys(node for node in outer if isinstance(node.meta.get("val"), Tensor))),
        output,
        inside,
        -1 if inside[-1].target is aten.linear.default else 1,
        rows,
    )


def _constants(graph: Graph) -> set[fx.Node]:
    """Returns the nodes whose values don't depend on the inputs."""
    found: set[fx.Node] = set()
    for node in graph.program.graph.nodes:
        computed = node.op == "call_function" and node.all_input_nodes
        if node.op == "get_attr" or (computed and found.issuperset(node.all_input_nodes)):
            found.add(node)
    return found


def _batch(inputs: Sequence[fx.Node]) -> Any:
    """Returns the symbol of the dynamic batch size; None where the batch size is fixed."""
    sizes = [node.meta["val"].shape[0] for node in inputs if node.meta["val"].dim()]
    return next((size.node.expr for size in sizes if isinstance(size, torch.SymInt)), None)


def _is_count(node: fx.Node, batch: Any) -> bool:
    """Tells whether a value is the batch size itself."""
    value = node.meta.get("val")
    return isinstance(value, torch.SymInt) and value.node.expr == batch


def _by_sample(node: fx.Node, batch: Any) -> bool:
    """Tells whether a value is a tensor with the samples on its first axis and on no other."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or not value.dim() or not value.dtype.is_floating_point:
        return False
    symbols: list[Any] = [size.node.expr if isinstance(size, torch.SymInt) else None for size in value.shape]
    elsewhere = any(batch in expr.free_symbols for expr in symbols[1:] if expr is not None)
    return batch is not None and symbols[0] == batch and not elsewhere
