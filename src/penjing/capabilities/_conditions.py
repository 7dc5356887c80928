"""Conditions on an op's node that the records of several targets share."""

import torch
from torch import fx

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


def zero_pad(node: fx.Node) -> bool:
    """Tells whether a pad adds zeros, which every grid holds; only such a pad passes integers on."""
    arguments = node_arguments(node)
    if min(arguments[1], default=0) < 0:
        return False
    if node.target is aten.constant_pad_nd.default:
        return arguments[2] in (None, 0)
    return arguments[2] == "constant" and arguments[3] in (None, 0)
