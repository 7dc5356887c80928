"""How nodes are written into a graph: each on behalf of a node that was there, whose origin in the user's model it keeps.

Costs, plans, reports and error messages name a node by that origin, so a node without one belongs to no layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

ORIGIN = ("module", "source")


def origin(node: fx.Node) -> dict[str, Any]:
    """Returns the path of the user's module and the line of the user's code that a node comes from, where it knows them."""
    return {key: node.meta[key] for key in ORIGIN if key in node.meta}


@dataclass(frozen=True)
class Writer:
    """Writes nodes one behind the other at one position of a graph, on behalf of one node.

    Attributes:
        position: the node before which they are written.
        behalf: the node whose origin they keep.
        meta: what else each of them remembers.
        values: whether each call gets `meta["val"]`, what it computes without data; its arguments must have theirs.
    """

    position: fx.Node
    behalf: fx.Node
    meta: Mapping[str, Any] = field(default_factory=dict)
    values: bool = False

    @classmethod
    def before(
        cls,
        node: fx.Node,
        on_behalf_of: fx.Node | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        values: bool = False,
    ) -> "Writer":
        """Returns a writer of nodes before `node`, by default on its own behalf."""
        return cls(node, on_behalf_of or node, meta or {}, values)

    @classmethod
    def after(
        cls,
        node: fx.Node,
        on_behalf_of: fx.Node | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        values: bool = False,
    ) -> "Writer":
        """Returns a writer of nodes behind `node`, by default on its own behalf."""
        return cls(node.next, on_behalf_of or node, meta or {}, values)

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Writes a call."""
        node = self._write("call_function", target, args, kwargs)
        if self.values:
            node.meta["val"] = value_of(node)
        return node

    def named(self, name: str, target: Any, *args: Any) -> fx.Node:
        """Writes a call under a name of its own; where another node has that name, a number is added to it."""
        node = self._write("call_function", target, args, {}, name)
        if self.values:
            node.meta["val"] = value_of(node)
        return node

    def fetch(self, path: str, value: Tensor | None = None) -> fx.Node:
        """Writes a node that reads the parameter or buffer `path`; `value` becomes its `meta["val"]`."""
        node = self._write("get_attr", path)
        if value is not None:
            node.meta["val"] = value
        return node

    def _write(
        self,
        op: str,
        target: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> fx.Node:
        graph = self.position.graph
        with graph.inserting_before(self.position):  # by `create_node`: the module that has a tensor may be made later
            node = graph.create_node(op, target, args, dict(kwargs or {}), name)
        node.meta = {**origin(self.behalf), **self.meta}
        return node


def value_of(node: fx.Node) -> Any:
    """Returns what a call computes, without data, from the `meta["val"]` of its arguments."""

    def known(argument: fx.Node) -> Any:
        return argument.meta["val"]

    with torch.no_grad():
        return node.target(*fx.map_arg(node.args, known), **fx.map_arg(node.kwargs, known))  # type: ignore[operator]


def replace(node: fx.Node, values: fx.Node | Sequence[fx.Node | None]) -> None:
    """Takes a node out of its graph, and lets its readers read what stands for it.

    Args:
        node: the one to take out.
        values: one node, or, for a node with several results, one for each of them. None stands for a result that nothing
            uses.
    """
    if isinstance(values, fx.Node):
        node.replace_all_uses_with(values)
    else:
        for taken in list(node.users):  # takes one result: `getitem(node, index)`
            value = values[taken.args[1]]  # type: ignore[index]
            if value is not None:
                taken.replace_all_uses_with(value)
            node.graph.erase_node(taken)
    node.graph.erase_node(node)


def insert_behind(node: fx.Node, inserted: fx.Node) -> None:
    """Lets all that read `node` read `inserted`, which alone reads `node` from then on."""
    node.replace_all_uses_with(inserted, delete_user_cb=lambda reader: reader is not inserted)


def set_bias(layer: fx.Node, bias: fx.Node) -> None:
    """Makes `bias` the bias of a convolution or linear layer, whether it had one or not."""
    if len(layer.args) > 2:
        layer.update_arg(2, bias)
    elif "bias" in layer.kwargs or len(layer.args) < 2:
        layer.update_kwarg("bias", bias)
    else:
        layer.args = (*layer.args, bias)
