"""Embeddings with tables in few bits: rows are looked up as integers, and only these rows become real numbers."""

from typing import Any

import torch
from torch import fx
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

from penjing.graph import Graph
from penjing.graph.edit.rewriter import Writer, replace
from penjing.graph.ops import LOOKUPS, node_arguments
from penjing.graph.sources import is_constant
from penjing.targets._integers import evaluate
from penjing.targets._origins import STANDS_FOR

aten = torch.ops.aten
ops = torch.ops.quantized_decomposed


def look_up_integers(graph: Graph) -> None:
    """Writes embeddings of dequantised tables, in place, as embeddings of the integers, times the scales of the rows.

    `real = (code − zero point) · scale` is the same whether it is computed before or after the lookup, to the last bit.
    Otherwise the table would be dequantised as a whole, in each call.

    Args:
        graph: a graph in which integers are stored in the place of float weights.
    """
    for node in list(graph.program.graph.nodes):
        if node.target in LOOKUPS and isinstance(node.args[0], fx.Node):
            _look_up(graph, node, node.args[0])


def _look_up(graph: Graph, node: fx.Node, table: fx.Node) -> None:
    while table.target is aten.reshape.default:  # from a matrix, which a table is
        table = table.args[0]  # type: ignore[assignment]
    if not str(table.target).startswith("quantized_decomposed.dequantize_per_") or not is_constant(table.args[0]):
        return
    codes: Any = table.args[0]
    indices, given = node.args[1], node_arguments(table)
    grouped = table.target is ops.dequantize_per_channel_group.default
    write = Writer.before(node, meta={STANDS_FOR: node.meta.get(STANDS_FOR, node.name)})

    def rows(values: torch.Tensor, name: str) -> fx.Node:
        """Looks up one number for each entry, or for each group of entries, of a row."""
        path = f"{codes.target}_{name}"
        if path not in graph.tensors():
            graph.set_tensor(path, values.to(torch.float32).reshape(len(values), -1))
        found = write(aten.embedding.default, write.fetch(path), indices)
        return write(aten.unsqueeze.default, found, -1) if grouped else found

    real = write(aten.to.dtype, write(aten.embedding.default, codes, indices), torch.float32)
    if table.target is ops.dequantize_per_tensor.default:
        scale, zero = given[1:3]
        real = write(aten.sub.Tensor, real, float(zero)) if zero else real
        replace(node, write(aten.mul.Tensor, real, scale))
        return
    scales, zeros = (evaluate(graph, value).detach() for value in given[1:3])
    if grouped:
        real = write(aten.unflatten.int, real, -1, [scales.shape[1], given[6]])
    if bool(zeros.any()):
        real = write(aten.sub.Tensor, real, rows(zeros, "row_zeros"))
    real = write(aten.mul.Tensor, real, rows(scales, "row_scales"))
    replace(node, write(aten.flatten.using_ints, real, -2, -1) if grouped else real)
