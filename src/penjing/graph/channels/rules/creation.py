"""Constant tensors made in the graph, such as a recurrent layer's zero states; they shrink with the tensors that they join."""

from typing import Any

import torch
from torch import fx

from penjing.graph.channels.rules.shaping import resized
from penjing.graph.channels.rules.table import Axes, Labelling, Resizing, resize, rule, set_argument

aten = torch.ops.aten

_OPS = (
    aten.zeros.default,
    aten.ones.default,
    aten.full.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)


@rule(*_OPS)
def filled(labelling: Labelling, *_: Any) -> Axes:
    """Gives new labels: all entries are equal, so any index may be removed."""
    return tuple(labelling.axis(size) for size in labelling.output())


@resize(*_OPS)
def resize_filled(resizing: Resizing, node: fx.Node) -> None:
    """Rewrites the sizes."""
    size: Any = node.args[1 if node.target._schema.arguments[0].name == "self" else 0]  # type: ignore[union-attr]
    set_argument(node, "size", resized(resizing, node, list(size)))
