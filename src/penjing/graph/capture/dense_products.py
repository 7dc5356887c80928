"""Products with a constant matrix as `linear`: what is pruned, quantised and lowered as a layer is then the same op."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.graph.capture.constant_nodes import cone, constant_nodes, dimensions, order_of_axes
from penjing.graph.edit.rewriter import Writer
from penjing.graph.ops import node_arguments

aten = torch.ops.aten


def products_as_linear(nodes: fx.Graph, tensors: Mapping[str, Tensor]) -> list[tuple[fx.Node, Any, Any]]:
    """Rewrites products with a matrix that only constants make to `linear`; returns them with what they were."""
    changed = []
    constants = constant_nodes(nodes)
    for node in list(nodes.nodes):
        product = PRODUCTS.get(node.target)
        parts = product(node) if product is not None else None
        if parts is None:
            continue
        values, matrix, bias, transposed = parts
        if matrix not in constants or values in constants or dimensions(matrix) != 2:
            continue
        if not any(isinstance(tensors.get(str(source.target)), nn.Parameter) for source in cone(matrix)):
            continue  # a fixed filterbank is no layer
        changed.append((node, node.target, node.args))
        weight = matrix if transposed else _transposed(matrix, node)
        node.target, node.args, node.kwargs = (
            aten.linear.default,
            (values, weight, *([] if bias is None else [bias])),
            {},
        )
    return changed


def _transposed(matrix: fx.Node, product: fx.Node) -> fx.Node:
    """Returns a matrix' transpose for a product: what the matrix is the transpose of, where it is one."""
    order = order_of_axes(matrix)
    source = matrix.args[0] if matrix.args else None
    if order == [1, 0] and isinstance(source, fx.Node) and dimensions(source) == 2:
        return source
    return Writer.before(product, on_behalf_of=matrix, values=True)(aten.t.default, matrix)


Product = tuple[fx.Node, fx.Node, fx.Node | None, bool]
"""The values, the matrix, the bias, and whether the matrix stands as `linear` takes it, outputs first."""


def _matmul(node: fx.Node) -> Product | None:
    values, matrix = node_arguments(node)[:2]
    return (values, matrix, None, False)


def _addmm(node: fx.Node) -> Product | None:
    bias, values, matrix, beta, alpha = node_arguments(node)
    if beta != 1 or alpha != 1 or dimensions(bias) != 1 or bias.meta["val"].shape[0] != matrix.meta["val"].shape[1]:
        return None
    return (values, matrix, bias, False)


def _einsum(node: fx.Node) -> Product | None:
    equation, operands = node_arguments(node)[:2]
    terms, arrow, result = equation.replace(" ", "").replace("...", ".").partition("->")
    if not arrow or len(operands) != 2 or terms.count(",") != 1:
        return None
    left, right = terms.split(",")
    if len(right) != 2 or "." in right or len({*left}) != len(left) or not left:
        return None
    summed = left[-1]
    if summed not in right or summed in result:
        return None
    made = right.replace(summed, "", 1)
    if made in left or result != left[:-1] + made:
        return None
    return (operands[0], operands[1], None, right[1] == summed)


PRODUCTS = {
    aten.matmul.default: _matmul,
    aten.mm.default: _matmul,
    aten.addmm.default: _addmm,
    aten.einsum.default: _einsum,
}
"""How the parts of a dense product stand among the arguments of each op."""
