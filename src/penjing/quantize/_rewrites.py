"""Activations written as ops, or put in places, that targets have integer kernels for; the values stay the same."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


def silu(nodes: fx.Graph, node: fx.Node) -> None:
    """x · sigmoid(x)."""
    _gated(nodes, node, aten.sigmoid.default)


def hardswish(nodes: fx.Graph, node: fx.Node) -> None:
    """x · hardsigmoid(x)."""
    _gated(nodes, node, aten.hardsigmoid.default)


def _gated(nodes: fx.Graph, node: fx.Node, gate: Any) -> None:
    x = node.args[0]
    with nodes.inserting_before(node):
        opened = nodes.call_function(gate, (x,))
        product = nodes.call_function(aten.mul.Tensor, (x, opened))
    for new in (opened, product):
        new.meta = {"module": node.meta.get("module", ""), "source": node.meta.get("source", "")}
    node.replace_all_uses_with(product)
    nodes.erase_node(node)


GATED: Mapping[Any, Callable[[fx.Graph, fx.Node], None]] = {aten.silu.default: silu, aten.hardswish.default: hardswish}
"""By the op that is written as its input times a gate."""


def move_up(nodes: fx.Graph, clip: fx.Node, source: fx.Node) -> None:
    """Puts a clip right behind `source`, of whose values alone it reads some: `relu(pool(x))` becomes `pool(relu(x))`."""
    with nodes.inserting_after(source):
        moved = nodes.call_function(clip.target, (source, *clip.args[1:]), dict(clip.kwargs))  # type: ignore[arg-type]
    moved.meta = {"module": clip.meta.get("module", ""), "source": clip.meta.get("source", "")}
    source.replace_all_uses_with(moved, delete_user_cb=lambda user: user is not moved)
    clip.replace_all_uses_with(clip.args[0])  # type: ignore[arg-type]
    nodes.erase_node(clip)
