"""Constant tensors made in the graph, such as zero states or running numbers: as long as what they are joined with."""

from typing import Any

import numpy as np
import torch
from torch import fx

from penjing.graph.rules.shaping import resized
from penjing.graph.rules.table import FREE, Axes, Labelling, Resizing, resize, rule, set_argument

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
    """All entries are alike, so any index may go."""
    return tuple(None if size >= FREE else labelling.fresh(size) for size in labelling.output())


@resize(*_OPS)
def resize_filled(resizing: Resizing, node: fx.Node) -> None:
    """Rewrites the sizes."""
    size: Any = node.args[1 if node.target._schema.arguments[0].name == "self" else 0]  # type: ignore[union-attr]
    set_argument(node, "size", resized(resizing, node, list(size)))


_RUNNING = (aten.arange.default, aten.arange.start, aten.arange.start_step)


@rule(*_RUNNING)
def running_numbers(labelling: Labelling, *_: Any) -> Axes:
    """Each number keeps its value when others go, as the frequencies of sine positions must."""
    return tuple(None if size >= FREE else labelling.fresh(size) for size in labelling.output())


@resize(*_RUNNING)
def resize_running_numbers(resizing: Resizing, node: fx.Node) -> None:
    """Picks the numbers that stay out of all."""
    kept = resizing.kept(node, 0)
    if kept is None or kept.all():
        return
    with node.graph.inserting_before(node):
        everything = node.graph.node_copy(node)
        places = resizing.constant(node, torch.from_numpy(np.flatnonzero(kept)))
    node.target, node.args, node.kwargs = aten.index_select.default, (everything, 0, places), {}
