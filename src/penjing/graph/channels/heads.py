"""Finds attention's heads among the channels: the axis of attention scores that is neither samples nor positions."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import fx

from penjing.graph.channels.channels import Channels, Group
from penjing.graph.graph import Graph
from penjing.graph.ops import node_arguments

aten = torch.ops.aten

_PRODUCTS = {aten.matmul.default, aten.bmm.default, aten.einsum.default}
_SOFTMAX = {aten.softmax.int, aten._softmax.default, aten._safe_softmax.default}

# Ops between the softmax and the product with the values that change no axis.
_PASSED = {
    aten.dropout.default, aten.clone.default, aten.contiguous.default, aten.to.dtype, aten.type_as.default,
    aten._to_copy.default, aten.where.self, aten.masked_fill.Scalar, aten.nan_to_num.default, aten.mul.Tensor,
}  # fmt: skip


def heads(graph: Graph, channels: Channels) -> tuple[Group, ...]:
    """Returns the groups whose units are heads of attention, be it one op or written out as products and a softmax.

    A unit is a key head with all query heads that it serves.

    Args:
        graph: the graph that `channels` describes.
        channels: the channels, labelled with `units="heads"`; groups of heads' features aren't groups of heads.
    """
    found = np.zeros(int(channels.class_of.max()) + 1, bool)
    for node in graph.program.graph.nodes:
        for scores in _kept_apart(node):
            axes = channels.labels.get(scores) or ()
            for labels in axes[:-2]:  # the last two are positions
                if labels is not None:
                    found[channels.class_of[labels]] = True
    return tuple(group for group in channels.groups if found[group.classes].all())


def _kept_apart(node: fx.Node) -> Iterator[fx.Node]:
    """Yields a node of each attention whose axes before the last two are samples and heads."""
    if node.target is aten.scaled_dot_product_attention.default:
        yield node.all_input_nodes[0]
    elif node.target in _SOFTMAX and node_arguments(node)[1] in (-1, node.meta["val"].dim() - 1) and _weighs(node):
        yield node


def _weighs(scores: fx.Node) -> bool:
    """Tells whether these scores are multiplied with another matrix, such as attention's values."""
    return any(user.target in _PRODUCTS or (user.target in _PASSED and _weighs(user)) for user in scores.users)
