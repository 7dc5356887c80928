"""Conditions on an op's node, and tables of ops, that the records of several targets share."""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from penjing.capabilities._records import Condition
from penjing.graph.clips import Interval
from penjing.graph.ops import node_arguments

aten = torch.ops.aten


def always(node: fx.Node) -> bool:
    """Puts no condition on a node."""
    return True


def rank(node: fx.Node) -> int:
    """Returns the number of axes of a node's first operand."""
    return int(node.args[0].meta["val"].dim())  # type: ignore[union-attr]


def flat_or_square(node: fx.Node) -> bool:
    """Tells whether a convolution runs over one axis or two."""
    return rank(node) <= 4


def two_tensors(node: fx.Node) -> bool:
    """Tells whether both operands are tensors, neither of them scaled."""
    return all(isinstance(operand, fx.Node) for operand in node.args[:2]) and bool(node.kwargs.get("alpha", 1) == 1)


def over_space(node: fx.Node) -> bool:
    """Tells whether a mean runs over height and width."""
    axes, dtype = node_arguments(node)[1], node_arguments(node)[3]
    return rank(node) == 4 and axes is not None and dtype is None and sorted(axis % 4 for axis in axes) == [2, 3]


def divides(node: fx.Node) -> bool:
    """Tells whether all windows of an adaptive pool are alike, so that it is a mean or an ordinary pool."""
    x, out = node.args[0].meta["val"], node.args[1]  # type: ignore[union-attr]
    if x.dim() != 4 or not isinstance(out, list | tuple):
        return False
    pairs = [(size, wanted) for size, wanted in zip(x.shape[2:], out, strict=True) if wanted is not None]
    return all(isinstance(size, int) and size % wanted == 0 for size, wanted in pairs) or list(out) == [1, 1]


def zero_pad(node: fx.Node) -> bool:
    """Tells whether a pad adds zeros, which every grid holds; only such a pad passes integers on."""
    arguments = node_arguments(node)
    if min(arguments[1], default=0) < 0:
        return False
    if node.target is aten.constant_pad_nd.default:
        return arguments[2] in (None, 0)
    return arguments[2] == "constant" and arguments[3] in (None, 0)


MOVES: Mapping[Any, Condition] = {
    aten.reshape.default: always,
    aten.flatten.using_ints: always,
    aten.unflatten.int: always,
    aten.transpose.int: always,
    aten.permute.default: always,
    aten.squeeze.dim: always,
    aten.squeeze.dims: always,
    aten.unsqueeze.default: always,
    aten.contiguous.default: always,
    aten.clone.default: always,
    aten.dropout.default: always,
    aten.feature_dropout.default: always,
    aten.slice.Tensor: always,
    aten.chunk.default: always,
    aten.split.Tensor: always,
    aten.split.sizes: always,
    aten.split_with_sizes.default: always,
    operator.getitem: always,
}
"""Ops that move values or name them anew, and so pass integers on in every runtime that has integers."""

BOUNDED: Mapping[Any, Interval] = {
    aten.sigmoid.default: (0.0, 1.0),
    aten.hardsigmoid.default: (0.0, 1.0),
    aten.softmax.int: (0.0, 1.0),
}
"""Ops whose values never pass these bounds."""
