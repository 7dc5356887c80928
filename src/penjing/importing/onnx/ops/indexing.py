"""Entries by their places."""

from typing import Any

import torch
from torch import Tensor, nn

from penjing.importing.onnx.node import Form, Node, no_form
from penjing.importing.onnx.ops.table import form


@form("Gather")
def gather(node: Node) -> Form:
    """Entries along one axis by their places; rows of a constant table as an embedding."""
    axis = node.attribute("axis", 0)
    table, places = node.constant(0), node.constant(1)
    if table is not None and table.ndim == 2 and table.dtype.kind == "f" and axis == 0 and places is None:
        layer = nn.Embedding(table.shape[0], table.shape[1])
        layer.weight = node.share((node.names[0], "as it is"), lambda: torch.tensor(table))
        return Form(layer, (node.tensor(1),), owner=0)
    if places is not None and places.ndim == 0:
        place = int(places)
        return node.function(lambda x: x.select(axis, place), node.tensor(0))
    if places is not None and places.ndim == 1 and places.size and (places >= 0).all():
        first, last = int(places[0]), int(places[-1])
        if places.tolist() == list(range(first, last + 1)):
            return node.function(lambda x: x.narrow(axis, first, last + 1 - first), node.tensor(0))

    def compute(x: Tensor, index: Any) -> Tensor:
        if not isinstance(index, Tensor):
            return x.select(axis, index)
        index = torch.where(index < 0, index + x.shape[axis], index)
        at = axis % x.ndim
        return x.index_select(at, index.reshape(-1)).reshape(*x.shape[:at], *index.shape, *x.shape[at + 1 :])

    return node.function(compute)


@form("GatherElements")
def gather_elements(node: Node) -> Form:
    """Entries along one axis, each by a place of its own."""
    axis = node.attribute("axis", 0)

    def compute(x: Tensor, index: Tensor) -> Tensor:
        return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index))

    return node.function(compute)


@form("GatherND")
def gather_nd(node: Node) -> Form:
    """Entries by their places on several axes."""
    if node.attribute("batch_dims", 0):
        raise no_form(node, "it counts places within each sample (batch_dims)")
    return node.function(lambda x, index: x[tuple(index.unbind(-1))])


@form("OneHot")
def one_hot(node: Node) -> Form:
    """Two values, one where a class stands."""
    depth = int(node.wanted_constant(1).reshape(-1)[0])
    off, on = node.wanted_constant(2).tolist()
    axis = node.attribute("axis", -1)

    def compute(x: Tensor) -> Tensor:
        x = x.long()
        hot = torch.arange(depth, device=x.device) == torch.where(x < 0, x + depth, x).unsqueeze(-1)
        filled = torch.where(hot, on, off)
        return filled if axis in (-1, x.ndim) else filled.movedim(-1, axis)

    return node.function(compute, node.tensor(0))


@form("ScatterND")
def scatter_nd(node: Node) -> Form:
    """A tensor with other entries at some places."""
    if node.attribute("reduction", "none") != "none":
        raise no_form(node, "it adds to what stands there (reduction)")
    return node.function(lambda x, index, values: x.index_put(tuple(index.unbind(-1)), values))
