"""Rewrites activation functions into ops, or moves them to positions, for which targets have integer kernels."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from penjing.graph.edit.rewriter import Writer, insert_behind, replace

aten = torch.ops.aten


def silu(node: fx.Node) -> None:
    """Writes SiLU as x · sigmoid(x)."""
    _gated(node, aten.sigmoid.default)


def hardswish(node: fx.Node) -> None:
    """Writes hardswish as x · hardsigmoid(x)."""
    _gated(node, aten.hardsigmoid.default)


def _gated(node: fx.Node, gate: Any) -> None:
    x, write = node.args[0], Writer.before(node)
    replace(node, write(aten.mul.Tensor, x, write(gate, x)))


GATED: Mapping[Any, Callable[[fx.Node], None]] = {aten.silu.default: silu, aten.hardswish.default: hardswish}
"""The rewrite of each op that can be written as its input times a gate."""


def move_up(clip: fx.Node, source: fx.Node) -> None:
    """Moves a clip right behind `source`, across ops that only move or select values: `relu(pool(x))` → `pool(relu(x))`."""
    moved = Writer.after(source, on_behalf_of=clip)(clip.target, source, *clip.args[1:], **clip.kwargs)
    insert_behind(source, moved)
    replace(clip, clip.all_input_nodes[0])
