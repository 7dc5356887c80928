"""Writes bags of equally many embeddings out as embeddings and a reduction.

Channels, quantisers and runtimes then see an ordinary embedding. Bags whose offsets are an input, and bags
with a weight for each entry, stay one op.
"""

import math
import operator
from typing import Any

import torch
from torch import fx

from penjing.graph.edit.rewriter import Writer, replace
from penjing.graph.ops import node_arguments

aten = torch.ops.aten
SUM, MEAN, MAX = 0, 1, 2  # the op's modes


def write_out_bags(graph: fx.Graph) -> None:
    """Replaces each `embedding_bag` over a matrix of indices, one bag per row, in place."""
    for node in list(graph.nodes):
        if node.target in (aten.embedding_bag.padding_idx, aten.embedding_bag.default):
            _write_out(node)
    graph.eliminate_dead_code()


def _write_out(node: fx.Node) -> None:
    table, flat, offsets, scales, mode, sparse, weights, last, *padding = node_arguments(node)
    bags = _matrix(flat)
    if bags is None or weights is not None or last or not _one_per_row(offsets, bags):
        return
    if any(taken.target is not operator.getitem or taken.args[1] != 0 for taken in node.users if taken.users):
        return
    write = Writer.before(node)
    left_out = padding[0] if padding and padding[0] is not None and padding[0] >= 0 else None
    rows = write(aten.embedding.default, table, bags, -1 if left_out is None else left_out, scales, sparse)
    replace(node, [_reduced(write, rows, bags, mode, left_out), None, None, None])


def _reduced(write: Writer, rows: fx.Node, bags: fx.Node, mode: int, left_out: int | None) -> fx.Node:
    """Reduces rows `(bags, entries, features)` to `(bags, features)`, without those of the index that is left out."""
    if left_out is None:
        reductions = {SUM: aten.sum.dim_IntList, MEAN: aten.mean.dim, MAX: aten.amax.default}
        return write(reductions[mode], rows, [1])
    skipped = write(aten.unsqueeze.default, write(aten.eq.Scalar, bags, left_out), -1)
    if mode == MAX:
        largest = write(aten.amax.default, write(aten.masked_fill.Scalar, rows, skipped, -math.inf), [1])
        return write(aten.masked_fill.Scalar, largest, write(aten.all.dim, skipped, 1), 0.0)
    total = write(aten.sum.dim_IntList, write(aten.masked_fill.Scalar, rows, skipped, 0.0), [1])
    if mode == SUM:
        return total
    counted = write(
        aten.sum.dim_IntList, write(aten.logical_not.default, skipped), [1], dtype=rows.args[0].meta["val"].dtype
    )
    return write(aten.div.Tensor, total, write(aten.clamp.default, counted, 1.0))


def _matrix(flat: Any) -> fx.Node | None:
    """Returns the matrix whose entries a vector holds row by row."""
    if not isinstance(flat, fx.Node) or flat.target is not aten.reshape.default or list(flat.args[1]) != [-1]:  # type: ignore[arg-type]
        return None
    source: Any = flat.args[0]
    return source if source.meta["val"].dim() == 2 else None


def _one_per_row(offsets: Any, bags: fx.Node) -> bool:
    """Tells whether bags begin where the rows of a matrix begin."""
    if not isinstance(offsets, fx.Node) or offsets.target is not aten.arange.start_step:
        return False
    start, end, step = offsets.args[:3]
    rows, entries = bags.meta["val"].shape
    whole = bool(end == rows * entries) if isinstance(end, int) else _is_count(end, bags)
    along = bool(step == entries) if isinstance(step, int) else _is_width(step, bags)
    return bool(start == 0) and whole and along


def _is_count(end: Any, bags: fx.Node) -> bool:
    return isinstance(end, fx.Node) and end.target is aten.sym_numel.default and end.args[0] is bags


def _is_width(step: Any, bags: fx.Node) -> bool:
    return (
        isinstance(step, fx.Node) and step.target is aten.sym_size.int and tuple(step.args) in ((bags, 1), (bags, -1))
    )
