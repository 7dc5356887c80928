"""The inputs of a captured graph as it describes them: shapes, free axes, and which free sizes must be equal."""

import itertools
from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph.inputs import Input
from penjing.graph.ops import node_arguments

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def describe_inputs(nodes: fx.Graph, leaves: list[Any]) -> tuple[tuple[Any, ...], bool]:
    """Turns placeholders into `Input`s and removes those of constants.

    Args:
        nodes: of the exported graph, with symbolic sizes in `meta["val"]`.
        leaves: the example's flat inputs.

    Returns:
        An `Input` for each tensor and the constant for each other leaf; and whether the batch axis is free.
    """
    placeholders = [node for node in nodes.nodes if node.op == "placeholder"]
    described: list[Any] = []
    batch_free = False
    equal = _equal_sizes(nodes)
    for node, leaf in zip(placeholders, leaves, strict=True):
        if not isinstance(leaf, Tensor):
            described.append(leaf)
            nodes.erase_node(node)
            continue
        shape = node.meta["val"].shape
        free = frozenset(axis for axis, size in enumerate(shape) if isinstance(size, torch.SymInt))
        batch_free = batch_free or 0 in free
        sizes = tuple(
            _size_name(size, f"{node.name}_{axis}", equal) if isinstance(size, torch.SymInt) else ""
            for axis, size in enumerate(shape)
        )
        described.append(Input.of(node.name, leaf, free, sizes))
    return tuple(described), batch_free


def _equal_sizes(nodes: fx.Graph) -> dict[Any, Any]:
    """Returns symbols of free sizes, each with another that it must equal though export doesn't say so.

    Attention takes as many keys as values. Its kernels don't compare the two: they read beyond the keys' end.
    """
    equal: dict[Any, Any] = {}
    for node in nodes.nodes:
        if node.target is not ATTENTION:
            continue
        key, value = (given.meta["val"].shape[-2] for given in node_arguments(node)[1:3])
        if not (isinstance(key, torch.SymInt) and isinstance(value, torch.SymInt)):
            continue
        difference = (key.node.expr - value.node.expr).xreplace(equal)
        for old, new in itertools.permutations(sorted(difference.free_symbols, key=str), 2):
            if difference == new - old:
                equal = {symbol: other.xreplace({old: new}) for symbol, other in equal.items()} | {old: new}
                break
    return equal


def _size_name(size: torch.SymInt, own: str, equal: dict[Any, Any]) -> str:
    """Names a free size by its symbol; export writes a number for one that only it fixed, as for recurrent layers."""
    expression = size.node.expr
    return str(expression.xreplace(equal)) if expression.free_symbols else own
