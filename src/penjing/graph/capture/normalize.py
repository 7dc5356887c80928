"""Puts a freshly exported graph into the form that everything after it relies on: functional, channels_last-proof."""

import operator

import torch
from torch import fx

from penjing.graph.capture.functionalize import functionalize, note_copies
from penjing.graph.ops import node_arguments

aten = torch.ops.aten

RESHAPES = {aten.view.default: aten.reshape.default, aten._unsafe_view.default: aten.reshape.default}
# What is never written has no value; zeros are as good, and show nobody what the memory held before.
UNWRITTEN = {
    aten.empty.memory_format: aten.zeros.default,
    aten.empty_like.default: aten.zeros_like.default,
    aten.new_empty.default: aten.new_zeros.default,
}
NOTHING = {aten.alias.default, aten.lift_fresh_copy.default, aten.lift_fresh.default}  # not detach: it stops gradients


def normalize(graph: fx.Graph) -> None:
    """Rewrites `graph` in place: no in-place ops, `reshape` for `view`, no ops that only pass their input on."""
    functionalize(graph)
    for node in list(graph.nodes):
        if node.target in RESHAPES:
            node.target = RESHAPES[node.target]
        elif node.target in UNWRITTEN:
            _write_zeros(node)
        elif node.target in NOTHING or _is_whole_slice(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _write_zeros(node: fx.Node) -> None:
    node.target = UNWRITTEN[node.target]
    if node.target is aten.zeros.default:  # alone has no memory format
        node.kwargs = {name: value for name, value in node.kwargs.items() if name != "memory_format"}


def _is_whole_slice(node: fx.Node) -> bool:
    """Tells whether a slice keeps all of its axis, as `x[:, 1:]` leaves behind for its first axis."""
    if node.target is not aten.slice.Tensor:
        return False
    _, _, start, end, step = node_arguments(node)
    return start in (None, 0) and end in (None, torch.iinfo(torch.int64).max) and step == 1


def inline_regions(graph: fx.Graph) -> None:
    """Inlines the bodies of `torch.no_grad()` and autocast regions, which export wraps into submodules.

    What comes out of a region without gradients is detached, so that training stays as it was. To be called before
    anything else, while every node still knows what export saw.
    """
    without_gradients = torch.ops.higher_order.wrap_with_set_grad_enabled
    wrappers = (without_gradients, torch.ops.higher_order.wrap_with_autocast)
    note_copies(graph)
    for node in list(graph.nodes):
        if node.target not in wrappers:
            continue
        position = next(i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and a.op == "get_attr")
        body: fx.GraphModule = operator.attrgetter(str(node.args[position].target))(graph.owning_module)
        body.graph.owning_module = body
        inline_regions(body.graph)
        inner = [n for n in body.graph.nodes if n.op == "placeholder"]
        known = dict(zip(inner, node.args[position + 1 :], strict=True))
        with graph.inserting_before(node):
            outputs = graph.graph_copy(body.graph, known)
            if node.target is without_gradients and node.args[0] is False:
                outputs = [_detached(graph, output) for output in outputs]
        for user in list(node.users):
            user.replace_all_uses_with(outputs[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(node)
    graph.eliminate_dead_code()


def _detached(graph: fx.Graph, node: fx.Node) -> fx.Node:
    detached = graph.call_function(aten.detach.default, (node,))
    detached.meta = dict(node.meta)
    return detached
