"""In-place ops become their functional twins, so that every node of a graph has one value for ever."""

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.graph.edit.rewriter import origin

aten = torch.ops.aten

COPIES = "copies"
"""Meta key of a node whose op may give a view (`reshape`, `contiguous`, `to`) but gave a copy here."""

_SEVERAL_VIEWS = {
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unbind.int,
    aten.split.sizes,
}
_SAME_ENTRIES = {
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.view_as.default,
}
_SAME_TENSOR = {
    aten.alias.default,
    aten.detach.default,
    aten.contiguous.default,
    aten.lift_fresh.default,
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
}


def note_copies(nodes: fx.Graph) -> None:
    """Marks the nodes that made a copy where their op might have made a view, from the storages that export saw."""
    for node in nodes.nodes:
        if _may_alias(node) and isinstance(node.args[0], fx.Node):
            shown, base = node.meta.get("val"), node.args[0].meta.get("val")
            if isinstance(shown, Tensor) and isinstance(base, Tensor):
                node.meta[COPIES] = shown.untyped_storage()._cdata != base.untyped_storage()._cdata


def functionalize(graph: fx.Graph) -> None:
    """Replaces in-place ops by their functional twins, also where they write through a chain of views.

    `y = x[:, 0]; y.add_(1)` becomes `x1 = select_scatter(x, add(select(x)))`; later readers of `x`, and of any view of
    it, read `x1` and views that are taken of it again.

    Raises:
        PenjingError: an in-place op without a functional twin, or through a view that can't be written back.
    """
    _Functionalizer(graph).run()


@dataclass
class _Alias:
    """What is known of a node that shows a storage.

    Attributes:
        base: the node of which it is a view, or None for the storage's first owner.
        value: the node that holds its value now, if `version` is the storage's.
        version: when `value` was right.
    """

    base: fx.Node | None
    value: fx.Node
    version: int = 0


class _Functionalizer:
    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        self._aliases: dict[fx.Node, _Alias] = {}
        self._versions: dict[fx.Node, int] = {}
        self._same: dict[fx.Node, fx.Node] = {}  # an in-place op returns what it wrote to

    def run(self) -> None:
        for node in list(self._graph.nodes):
            with self._graph.inserting_before(node):
                base = self._written(node.args[0]) if node.args else None
                original = base if isinstance(base, fx.Node) else None
                node.args = fx.node.map_arg(node.args, self._now)
                node.kwargs = fx.node.map_arg(node.kwargs, self._now)
                if node.op != "call_function":
                    continue
                if original is not None and _mutates(node):
                    self._write(node, original)
                    self._same[node] = original
                elif original is not None and _is_view(node):
                    self._aliases[node] = _Alias(original, node, self._version(original))
                elif any(_is_written(a) for a in _schema_arguments(node)):
                    raise _no_twin(node)
        for node in reversed(list(self._same)):
            self._graph.erase_node(node)

    def _written(self, value: Any) -> Any:
        while isinstance(value, fx.Node) and value in self._same:
            value = self._same[value]
        return value

    def _root(self, node: fx.Node) -> fx.Node:
        while (alias := self._aliases.get(node)) is not None and alias.base is not None:
            node = alias.base
        return node

    def _version(self, node: fx.Node) -> int:
        return self._versions.get(self._root(node), 0)

    def _now(self, node: fx.Node) -> fx.Node:
        """Returns the node that holds the present value of `node`; takes a view again where its base has changed."""
        node = self._written(node)
        alias = self._aliases.get(node)
        if alias is None:
            return node
        version = self._version(node)
        if alias.version != version and alias.base is not None:
            alias.value, alias.version = self._take(node, self._now(alias.base)), version
        return alias.value

    def _take(self, view: fx.Node, base: fx.Node) -> fx.Node:
        again = self._graph.call_function(view.target, (base, *view.args[1:]), dict(view.kwargs))  # type: ignore[arg-type]
        again.meta = dict(view.meta)
        return again

    def _write(self, node: fx.Node, changed: fx.Node) -> None:
        value = _functional(self._graph, node)
        value.meta = dict(node.meta)
        chain: list[tuple[fx.Node, fx.Node]] = []  # each node that shows the changed entries, with its value so far
        current: fx.Node | None = changed
        while current is not None:
            if current.target not in _SEVERAL_VIEWS:  # its elements are written back to what it cut
                chain.append((current, self._now(current)))
            alias = self._aliases.get(current)
            current = alias.base if alias is not None else None
        root = chain[-1][0]
        self._versions[root] = version = self._versions.get(root, 0) + 1
        for position, (shown, _) in enumerate(chain):
            if position > 0:
                view, before = chain[position - 1][0], chain[position][1]
                value = self._scatter(view, before, value)
                value.meta = {**shown.meta, **origin(view)}
            alias = self._aliases.setdefault(shown, _Alias(None, shown))
            alias.value, alias.version = value, version

    def _scatter(self, view: fx.Node, base: fx.Node, value: fx.Node) -> fx.Node:
        call, args = self._graph.call_function, view.args[1:]
        if view.target is aten.slice.Tensor:
            return call(aten.slice_scatter.default, (base, value, *args))
        if view.target is aten.select.int:
            return call(aten.select_scatter.default, (base, value, *args))
        if view.target is operator.getitem:
            return self._scatter_piece(view, base, value)
        if view.target in _SAME_ENTRIES:
            return call(aten.view_as.default, (value, base))
        if view.target in _SAME_TENSOR:
            return call(aten.alias.default, (value,))
        if view.target in (aten.transpose.int, aten.t.default):
            return call(view.target, (value, *args))
        if view.target is aten.permute.default:
            rank = len(args[0])  # type: ignore[arg-type]
            order = [axis % rank for axis in args[0]]  # type: ignore[union-attr, operator]
            return call(aten.permute.default, (value, [order.index(axis) for axis in range(rank)]))
        raise PenjingError(
            f"The model writes in place through {view.target}{_at_line(view)}; do that without in-place assignment."
        )

    def _scatter_piece(self, element: fx.Node, base: fx.Node, value: fx.Node) -> fx.Node:
        """Writes one of the pieces that a split gave back to where it was cut."""
        split: Any = element.args[0]
        index: Any = element.args[1]
        if split.target is aten.unbind.int:
            axis = split.args[1] if len(split.args) > 1 else 0
            return self._graph.call_function(aten.select_scatter.default, (base, value, axis, index))
        axis = split.args[2] if len(split.args) > 2 else split.kwargs.get("dim", 0)
        ends = [0]
        for piece in split.meta["val"]:
            ends.append(ends[-1] + int(piece.shape[axis]))
        arguments = (base, value, axis, ends[index], ends[index + 1])
        return self._graph.call_function(aten.slice_scatter.default, arguments)


def _schema_arguments(node: fx.Node) -> list[Any]:
    return list(node.target._schema.arguments) if isinstance(node.target, torch._ops.OpOverload) else []


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _mutates(node: fx.Node) -> bool:
    arguments = _schema_arguments(node)
    return bool(arguments) and _is_written(arguments[0])


def _may_alias(node: fx.Node) -> bool:
    if node.op != "call_function" or not node.args:
        return False
    arguments = _schema_arguments(node)
    return bool(arguments) and arguments[0].alias_info is not None and not arguments[0].alias_info.is_write


def _is_view(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and node.args[0].target in _SEVERAL_VIEWS
    return _may_alias(node) and not node.meta.get(COPIES)


def _functional(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Inserts the functional twin of an in-place op, with the result in the dtype and shape of what it wrote to."""
    target: Any = node.target
    into: Any = node.args[0]
    dtype = into.meta["val"].dtype
    namespace, _, name = target._schema.name.partition("::")
    if name == "copy_":
        source = node.args[1]
        value = source.meta.get("val") if isinstance(source, fx.Node) else None
        if value is not None and value.dtype != dtype:
            source = graph.call_function(aten.to.dtype, (source, dtype))
        return graph.call_function(aten.expand_as.default, (source, into))
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    if not name.endswith("_") or packet is None or target._overloadname not in packet.overloads():
        raise _no_twin(node)
    twin_target = getattr(packet, target._overloadname)
    twin = graph.create_node("call_function", twin_target, node.args, dict(node.kwargs), name=packet.__name__)
    operands = [value for n in node.all_input_nodes if isinstance(value := n.meta.get("val"), Tensor)]
    if any(value.dtype not in (dtype, torch.bool) for value in operands) and dtype.is_floating_point:
        return graph.call_function(aten.to.dtype, (twin, dtype))
    return twin


def _no_twin(node: fx.Node) -> PenjingError:
    return PenjingError(
        f"The in-place op {node.target}{_at_line(node)} has no functional twin; write the model without it."
    )


def _at_line(node: fx.Node) -> str:
    return f" at {node.meta['source']}" if node.meta.get("source") else ""
