"""Puts a freshly exported graph into the form that everything after it relies on: functional, channels_last-proof."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from penjing.errors import PenjingError

aten = torch.ops.aten

RESHAPES = {aten.view.default: aten.reshape.default, aten._unsafe_view.default: aten.reshape.default}
NOTHING = {aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default, aten.lift_fresh.default}


def normalize(graph: fx.Graph) -> None:
    """Rewrites `graph` in place: no in-place ops, `reshape` for `view`, no ops that only pass their input on."""
    _inline_regions(graph)
    functionalize(graph)
    for node in list(graph.nodes):
        if node.target in RESHAPES:
            node.target = RESHAPES[node.target]
        elif node.target in NOTHING or _is_whole_slice(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _is_whole_slice(node: fx.Node) -> bool:
    """Tells whether a slice keeps all of its axis, as `x[:, 1:]` leaves behind for its first axis."""
    if node.target is not aten.slice.Tensor:
        return False
    _, _, start, end, step = node_arguments(node)
    return start in (None, 0) and end in (None, torch.iinfo(torch.int64).max) and step == 1


def _inline_regions(graph: fx.Graph) -> None:
    """Inlines the bodies of `torch.no_grad()` and autocast regions, which export wraps into submodules."""
    wrappers = (torch.ops.higher_order.wrap_with_set_grad_enabled, torch.ops.higher_order.wrap_with_autocast)
    for node in list(graph.nodes):
        if node.target not in wrappers:
            continue
        position = next(i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and a.op == "get_attr")
        body: fx.GraphModule = operator.attrgetter(str(node.args[position].target))(graph.owning_module)
        inner = [n for n in body.graph.nodes if n.op == "placeholder"]
        known = dict(zip(inner, node.args[position + 1 :], strict=True))
        with graph.inserting_before(node):
            outputs = graph.graph_copy(body.graph, known)
        for user in list(node.users):
            user.replace_all_uses_with(outputs[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(node)
    graph.eliminate_dead_code()


def functionalize(graph: fx.Graph) -> None:
    """Replaces in-place ops by their functional twins, also where they write through a chain of views.

    `y = x[:, 0]; y.add_(1)` becomes `x1 = select_scatter(x, add(select(x)))`; later readers of `x`, and of any view of
    it, read `x1` and views that are taken of it again.

    Raises:
        PenjingError: an in-place op without a functional twin, or through a view that can't be written back.
    """
    views: dict[fx.Node, fx.Node] = {}  # view -> what it is a view of
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if _is_view(node):
            views[node] = node.args[0]
        elif _mutates(node):
            _replace_mutation(graph, node, views)


def _is_view(node: fx.Node) -> bool:
    schema = node.target._schema
    first = schema.arguments[0].alias_info if schema.arguments else None
    return bool(first) and not first.is_write and bool(node.args) and isinstance(node.args[0], fx.Node)


def _mutates(node: fx.Node) -> bool:
    schema = node.target._schema
    return bool(schema.arguments) and schema.arguments[0].alias_info is not None and schema.arguments[0].alias_info.is_write


def _replace_mutation(graph: fx.Graph, node: fx.Node, views: dict[fx.Node, fx.Node]) -> None:
    changed = node.args[0]
    after = _nodes_after(node)
    with graph.inserting_before(node):
        fresh = _functional(graph, node)
    fresh.meta = dict(node.meta)
    node.replace_all_uses_with(fresh)
    chain = [changed]
    while chain[-1] in views:
        chain.append(views[chain[-1]])
    root = chain[-1]
    renewed = {changed: fresh}
    with graph.inserting_before(node):
        for view, base in zip(chain, chain[1:], strict=False):
            renewed[base] = _write_back(graph, view, base, renewed[view])
            renewed[base].meta = dict(base.meta)
    graph.erase_node(node)
    for old in chain:
        old.replace_all_uses_with(renewed[old], delete_user_cb=lambda user: user in after)
    # Other views of the same storage that are read later must show the new values.
    for view in [v for v in views if v not in chain and v not in after and _root(v, views) is root]:
        readers = [user for user in view.users if user in after]
        if not readers:
            continue
        again = _take_again(graph, view, views, renewed, before=min(readers, key=_position(graph)))
        view.replace_all_uses_with(again, delete_user_cb=lambda user, readers=readers: user in readers)
    for view in [v for v in views if v in after]:
        views[view] = view.args[0]
    views.update({again: again.args[0] for view, again in renewed.items() if view in views and again is not fresh})


def _nodes_after(node: fx.Node) -> set[fx.Node]:
    found, current = set(), node.next
    while current.op != "root":
        found.add(current)
        current = current.next
    return found


def _position(graph: fx.Graph) -> Callable[[fx.Node], int]:
    order = {node: index for index, node in enumerate(graph.nodes)}
    return order.__getitem__


def _root(view: fx.Node, views: dict[fx.Node, fx.Node]) -> fx.Node:
    while view in views:
        view = views[view]
    return view


def _take_again(
    graph: fx.Graph,
    view: fx.Node,
    views: dict[fx.Node, fx.Node],
    renewed: dict[fx.Node, fx.Node],
    before: fx.Node,
) -> fx.Node:
    if view in renewed:
        return renewed[view]
    base = _take_again(graph, views[view], views, renewed, before)
    with graph.inserting_before(before):
        again = graph.call_function(view.target, (base, *view.args[1:]), dict(view.kwargs))
    again.meta = dict(view.meta)
    renewed[view] = again
    return again


def _functional(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Inserts the functional twin of an in-place op, with the result in the dtype and shape of what it wrote to."""
    namespace, _, name = node.target._schema.name.partition("::")
    overload = node.target._overloadname
    if name == "copy_":
        source = node.args[1]
        like = node.args[0].meta["val"]
        value = source.meta.get("val") if isinstance(source, fx.Node) else None
        if value is not None and value.dtype != like.dtype:
            source = graph.call_function(aten.to.dtype, (source, like.dtype))
        return graph.call_function(aten.expand_as.default, (source, node.args[0]))
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    if not name.endswith("_") or packet is None or overload not in packet.overloads():
        raise PenjingError(
            f"The in-place op {node.target} at {node.meta.get('source', 'an unknown line')} has no functional twin; "
            "write the model without it."
        )
    return graph.call_function(getattr(packet, overload), node.args, dict(node.kwargs))


def _write_back(graph: fx.Graph, view: fx.Node, base: fx.Node, value: fx.Node) -> fx.Node:
    """Inserts the op that gives `base` with the part that `view` shows replaced by `value`."""
    call, args = graph.call_function, view.args[1:]
    match view.target:
        case aten.slice.Tensor:
            return call(aten.slice_scatter.default, (base, value, *args))
        case aten.select.int:
            return call(aten.select_scatter.default, (base, value, *args))
        case aten.view.default | aten.reshape.default | aten.unsqueeze.default | aten.squeeze.dim | aten.flatten.using_ints:
            return call(aten.view_as.default, (value, base))
        case aten.transpose.int:
            return call(aten.transpose.int, (value, *args))
        case aten.permute.default:
            order = list(args[0])
            return call(aten.permute.default, (value, [order.index(axis) for axis in range(len(order))]))
        case aten.alias.default | aten.detach.default | aten.to.dtype | aten.contiguous.default:
            return value
    raise PenjingError(
        f"The model writes in place through {view.target} at {view.meta.get('source', 'an unknown line')}; "
        "write that part without in-place assignment."
    )


def node_arguments(node: fx.Node) -> list[Any]:
    """Returns the arguments of an ATen call in the order of its schema, keywords and defaults filled in."""
    given = list(node.args)
    rest = node.target._schema.arguments[len(given) :]  # type: ignore[union-attr]
    return given + [node.kwargs.get(argument.name, argument.default_value) for argument in rest]
