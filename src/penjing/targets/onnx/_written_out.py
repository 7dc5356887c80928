"""Ops that the ONNX exporter can't translate, written out in ops that it can."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from penjing.graph.edit.rewriter import Writer, replace
from penjing.graph.ops import node_arguments
from penjing.targets._origins import STANDS_FOR

aten = torch.ops.aten


def write_out(nodes: fx.Graph) -> None:
    """Replaces such ops in place by others that compute the same."""
    for node in list(nodes.nodes):
        if (written_out := WRITTEN_OUT.get(node.target)) is not None:
            written_out(node)


def _attention_of_four_axes(node: fx.Node) -> None:
    """Gives attention four axes: batch, heads, length and features.

    Several batch axes, as with windows, become one: (B, W, heads, L, E) becomes (B·W, heads, L, E). A missing axis of heads is
    added: (B·heads, L, E) becomes (B·heads, 1, L, E).
    """
    arguments: Any = node.args
    query, key, value, *rest = arguments
    rank = query.meta["val"].dim()
    if rank == 3:
        _attention_with_one_head(node)
    if rank < 5:
        return
    last = rank - 4  # of the axes that become one
    write = _writer(node)
    outer = [_size(write, query, axis) for axis in range(last + 1)]

    def flat(tensor: fx.Node) -> fx.Node:
        return write(aten.flatten.using_ints, tensor, 0, last)

    def spread(mask: fx.Node) -> fx.Node:
        """Expands a mask that has batch axes over all batch axes, so that these can become one."""
        missing = rank - mask.meta["val"].dim()
        if missing >= last + 1:
            return mask
        for _ in range(missing):
            mask = write(aten.unsqueeze.default, mask, 0)
        return flat(write(aten.expand.default, mask, [*outer, -1, -1, -1]))

    if rest and isinstance(rest[0], fx.Node):
        rest[0] = spread(rest[0])
    kwargs: dict[str, Any] = dict(node.kwargs)
    if isinstance(kwargs.get("attn_mask"), fx.Node):
        kwargs["attn_mask"] = spread(kwargs["attn_mask"])
    attended = write(aten.scaled_dot_product_attention.default, flat(query), flat(key), flat(value), *rest, **kwargs)
    replace(node, write(aten.unflatten.int, attended, 0, outer))


def _attention_with_one_head(node: fx.Node) -> None:
    write = _writer(node)

    def wider(argument: Any) -> Any:
        """Adds the axis of heads to a tensor that has a batch axis."""
        if not isinstance(argument, fx.Node) or argument.meta["val"].dim() < 3:
            return argument
        return write(aten.unsqueeze.default, argument, 1)

    arguments = [wider(argument) for argument in node.args]
    kwargs = {name: wider(argument) for name, argument in node.kwargs.items()}
    replace(node, write(aten.squeeze.dim, write(aten.scaled_dot_product_attention.default, *arguments, **kwargs), 1))


def _size(write: Writer, tensor: fx.Node, axis: int) -> int | fx.Node:
    size = tensor.meta["val"].shape[axis]
    return size if isinstance(size, int) else write(aten.sym_size.int, tensor, axis)


def _adaptive_max_pool(node: fx.Node) -> None:
    """Takes the largest value of each bin, rows first: bin i of n over a size s is floor(i·s/n) … ceil((i + 1)·s/n)."""
    arguments: Any = node.args
    image, bins = arguments[:2]
    sizes = image.meta["val"].shape[-2:]
    indices = [user for user in node.users if user.args[1] == 1 and user.users]
    if indices or not all(isinstance(size, int) for size in sizes):
        return  # slices can't express the positions of the largest values, nor free image sizes
    result, write = image, _writer(node)
    for axis, size, count in zip((-2, -1), sizes, bins, strict=True):
        edges = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        windows = [write(aten.slice.Tensor, result, axis, *edge) for edge in edges]
        largest = [write(aten.amax.default, window, [axis], True) for window in windows]
        result = write(aten.cat.default, largest, axis)
    replace(node, [result, None])


def _distances(node: fx.Node) -> None:
    """Computes the distance of each row from each row as the norm of their difference."""
    left, right, p = node_arguments(node)[:3]
    write = _writer(node)
    rows, columns = write(aten.unsqueeze.default, left, -2), write(aten.unsqueeze.default, right, -3)
    apart = write(aten.sub.Tensor, rows, columns)
    replace(node, write(aten.linalg_vector_norm.default, apart, p, [-1]))


def _kth_value(node: fx.Node) -> None:
    """Takes the largest of the k smallest values."""
    value, k, axis, keep = node_arguments(node)[:4]
    _last_of_smallest(node, value, k, axis, keep)


def _median(node: fx.Node) -> None:
    """Takes the value in the middle; where two are in the middle, the lower one."""
    value, axis, keep = node_arguments(node)[:3]
    count = value.meta["val"].shape[axis]
    if isinstance(count, int):  # otherwise the position of the middle isn't known
        _last_of_smallest(node, value, (count + 1) // 2, axis, keep)


def _last_of_smallest(node: fx.Node, value: fx.Node, k: int, axis: int, keep: bool) -> None:
    write = _writer(node)
    smallest = write(aten.topk.default, value, k, axis, False, True)
    parts = [write(operator.getitem, smallest, place) for place in (0, 1)]
    last = [write(aten.slice.Tensor, part, axis, k - 1, k) for part in parts]
    replace(node, last if keep else [write(aten.squeeze.dim, part, axis) for part in last])


def _search_sorted(node: fx.Node) -> None:
    """Counts the sorted values that are below each value; with `right`, those that are not above it."""
    ordered, value, narrow, right, side, sorter = node_arguments(node)[:6]
    if sorter is not None:
        return
    compare = aten.le.Tensor if right or side == "right" else aten.lt.Tensor
    dtype = torch.int32 if narrow else torch.int64
    write = _writer(node)
    beside = write(aten.unsqueeze.default, value, -1)
    among = write(aten.unsqueeze.default, ordered, -2) if ordered.meta["val"].dim() > 1 else ordered
    below = write(compare, among, beside)
    replace(node, write(aten.sum.dim_IntList, below, [-1], dtype=dtype))


def _writer(node: fx.Node) -> Writer:
    """Returns a writer whose nodes are marked as standing for `node`."""
    return Writer.before(node, meta={STANDS_FOR: node.meta.get(STANDS_FOR, node.name)})


WRITTEN_OUT: dict[Any, Callable[[fx.Node], None]] = {
    aten.scaled_dot_product_attention.default: _attention_of_four_axes,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool,
    aten.cdist.default: _distances,
    aten.kthvalue.default: _kth_value,
    aten.median.dim: _median,
    aten.searchsorted.Tensor: _search_sorted,
}
"""The rewrite of each op; it leaves a node alone that it can't express in other ops."""
