"""Ops that the ONNX exporter can't translate, written out in ops that it can."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from penjing.graph.normalize import node_arguments
from penjing.targets._origins import STANDS_FOR

aten = torch.ops.aten


def write_out(nodes: fx.Graph) -> None:
    """Rewrites in place; each rewrite computes the same."""
    for node in list(nodes.nodes):
        if (writer := WRITERS.get(node.target)) is not None:
            writer(nodes, node)


def _attention_of_four_axes(nodes: fx.Graph, node: fx.Node) -> None:
    """Attention over more batch axes than one, as over windows: (B, W, heads, L, E) as (B·W, heads, L, E); without an axis
    of heads: (B·heads, L, E) as (B·heads, 1, L, E).
    """
    arguments: Any = node.args
    query, key, value, *rest = arguments
    rank = query.meta["val"].dim()
    if rank == 3:
        _attention_with_one_head(nodes, node)
    if rank < 5:
        return
    last = rank - 4  # of the axes that become one

    with nodes.inserting_before(node):
        outer = [_size(nodes, query, axis) for axis in range(last + 1)]

        def flat(tensor: fx.Node) -> fx.Node:
            return nodes.call_function(aten.flatten.using_ints, (tensor, 0, last))

        def spread(mask: fx.Node) -> fx.Node:
            """A mask with batch axes of its own has all of them, so that they can become one."""
            missing = rank - mask.meta["val"].dim()
            if missing >= last + 1:
                return mask
            for _ in range(missing):
                mask = nodes.call_function(aten.unsqueeze.default, (mask, 0))
            return flat(nodes.call_function(aten.expand.default, (mask, [*outer, -1, -1, -1])))

        if rest and isinstance(rest[0], fx.Node):
            rest[0] = spread(rest[0])
        kwargs: dict[str, Any] = dict(node.kwargs)
        if isinstance(kwargs.get("attn_mask"), fx.Node):
            kwargs["attn_mask"] = spread(kwargs["attn_mask"])
        attended = nodes.call_function(
            aten.scaled_dot_product_attention.default, (flat(query), flat(key), flat(value), *rest), kwargs
        )
        result = nodes.call_function(aten.unflatten.int, (attended, 0, outer))
    _take_place(node, result)


def _attention_with_one_head(nodes: fx.Graph, node: fx.Node) -> None:
    with nodes.inserting_before(node):

        def wider(argument: Any) -> Any:
            """Adds the axis of heads to what has an axis of the batch."""
            if not isinstance(argument, fx.Node) or argument.meta["val"].dim() < 3:
                return argument
            return nodes.call_function(aten.unsqueeze.default, (argument, 1))

        arguments = tuple(wider(argument) for argument in node.args)
        kwargs = {name: wider(argument) for name, argument in node.kwargs.items()}
        attended = nodes.call_function(aten.scaled_dot_product_attention.default, arguments, kwargs)
        result = nodes.call_function(aten.squeeze.dim, (attended, 1))
    _take_place(node, result)


def _size(nodes: fx.Graph, tensor: fx.Node, axis: int) -> int | fx.Node:
    size = tensor.meta["val"].shape[axis]
    return size if isinstance(size, int) else nodes.call_function(aten.sym_size.int, (tensor, axis))


def _adaptive_max_pool(nodes: fx.Graph, node: fx.Node) -> None:
    """A largest value per bin, rows first: bin i of n over a size s is floor(i·s/n) … ceil((i + 1)·s/n)."""
    arguments: Any = node.args
    image, bins = arguments[:2]
    sizes = image.meta["val"].shape[-2:]
    indices = [user for user in node.users if user.args[1] == 1 and user.users]
    if indices or not all(isinstance(size, int) for size in sizes):
        return  # where the largest values stood, and free image sizes, can't be said in slices
    with nodes.inserting_before(node):
        result = image
        for axis, size, count in zip((-2, -1), sizes, bins, strict=True):
            edges = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
            windows = [nodes.call_function(aten.slice.Tensor, (result, axis, *edge)) for edge in edges]
            largest = [nodes.call_function(aten.amax.default, (window, [axis], True)) for window in windows]
            result = nodes.call_function(aten.cat.default, (largest, axis))
    for user in list(node.users):
        if user.args[1] == 0:
            _take_place(user, result)
        else:
            nodes.erase_node(user)
    nodes.erase_node(node)


def _distances(nodes: fx.Graph, node: fx.Node) -> None:
    """Distances of all rows from all rows: the norm of their differences."""
    left, right, p = node_arguments(node)[:3]
    with nodes.inserting_before(node):
        rows = nodes.call_function(aten.unsqueeze.default, (left, -2))
        columns = nodes.call_function(aten.unsqueeze.default, (right, -3))
        apart = nodes.call_function(aten.sub.Tensor, (rows, columns))
        result = nodes.call_function(aten.linalg_vector_norm.default, (apart, p, [-1]))
    _take_place(node, result)


def _kth_value(nodes: fx.Graph, node: fx.Node) -> None:
    """The largest of the k smallest."""
    value, k, axis, keep = node_arguments(node)[:4]
    _last_of_smallest(nodes, node, value, k, axis, keep)


def _median(nodes: fx.Graph, node: fx.Node) -> None:
    """The lower of the two values in the middle, where there are two."""
    value, axis, keep = node_arguments(node)[:3]
    count = value.meta["val"].shape[axis]
    if isinstance(count, int):  # otherwise the place of the middle isn't known
        _last_of_smallest(nodes, node, value, (count + 1) // 2, axis, keep)


def _last_of_smallest(nodes: fx.Graph, node: fx.Node, value: fx.Node, k: int, axis: int, keep: bool) -> None:
    with nodes.inserting_before(node):
        smallest = nodes.call_function(aten.topk.default, (value, k, axis, False, True))
        parts = [nodes.call_function(operator.getitem, (smallest, place)) for place in (0, 1)]
        last = [nodes.call_function(aten.slice.Tensor, (part, axis, k - 1, k)) for part in parts]
        results = last if keep else [nodes.call_function(aten.squeeze.dim, (part, axis)) for part in last]
    for user in list(node.users):
        _take_place(user, results[user.args[1]])  # type: ignore[index]
    nodes.erase_node(node)


def _search_sorted(nodes: fx.Graph, node: fx.Node) -> None:
    """How many of the sorted values are below; with `right`, not above."""
    ordered, value, narrow, right, side, sorter = node_arguments(node)[:6]
    if sorter is not None:
        return
    compare = aten.le.Tensor if right or side == "right" else aten.lt.Tensor
    dtype = torch.int32 if narrow else torch.int64
    with nodes.inserting_before(node):
        beside = nodes.call_function(aten.unsqueeze.default, (value, -1))
        among = ordered
        if ordered.meta["val"].dim() > 1:
            among = nodes.call_function(aten.unsqueeze.default, (ordered, -2))
        below = nodes.call_function(compare, (among, beside))
        result = nodes.call_function(aten.sum.dim_IntList, (below, [-1]), {"dtype": dtype})
    _take_place(node, result)


def _take_place(node: fx.Node, result: fx.Node) -> None:
    """Makes `result` and what was written for it be of the module and line of `node`, and takes `node` out."""
    for made in _new(result):
        made.meta.update({name: value for name, value in node.meta.items() if name in ("module", "source")})
        made.meta[STANDS_FOR] = node.meta.get(STANDS_FOR, node.name)
    node.replace_all_uses_with(result)
    node.graph.erase_node(node)


def _new(result: fx.Node) -> list[fx.Node]:
    """Returns `result` and those of its sources that aren't described yet."""
    found: list[fx.Node] = []
    waiting = [result]
    while waiting:
        node = waiting.pop()
        if "source" not in node.meta and node.op == "call_function" and node not in found:
            found.append(node)
            waiting += node.all_input_nodes
    return found


WRITERS: dict[Any, Callable[[fx.Graph, fx.Node], None]] = {
    aten.scaled_dot_product_attention.default: _attention_of_four_axes,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool,
    aten.cdist.default: _distances,
    aten.kthvalue.default: _kth_value,
    aten.median.dim: _median,
    aten.searchsorted.Tensor: _search_sorted,
}
"""By op; a writer leaves alone what it can't write."""
