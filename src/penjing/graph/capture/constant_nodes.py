"""Which nodes of a graph are constants: what nothing but parameters, buffers and constants reach."""

from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph import modes

aten = torch.ops.aten

TRANSPOSES = frozenset({aten.t.default, aten.numpy_T.default, aten.mT.default})
SAME_ENTRIES = frozenset({aten.contiguous.default, aten.clone.default, aten.alias.default})


def constant_nodes(nodes: fx.Graph) -> set[fx.Node]:
    """Returns the nodes that nothing but parameters, buffers and constants reach, and that give the same every time."""
    found: set[fx.Node] = set()
    for node in nodes.nodes:
        if node.op == "get_attr" or (
            node.op == "call_function"
            and _is_pure(node)
            and node.all_input_nodes
            and found.issuperset(node.all_input_nodes)
        ):
            found.add(node)
    return found


def _is_pure(node: fx.Node) -> bool:
    """Tells whether an op computes the same each time and in both modes. Others than ATen's may stand for training."""
    if modes.SWITCHES in node.meta or modes.TRAINING_DROPOUT in node.meta:
        return False
    if not isinstance(node.target, torch._ops.OpOverload):
        return getattr(node.target, "__module__", "") in ("_operator", "math", "torch")
    return (
        node.target.namespace == "aten"
        and torch.Tag.nondeterministic_seeded not in node.target.tags
        and "fake_quant" not in node.target.name()
    )


def cone(node: fx.Node) -> list[fx.Node]:
    """Returns the tensors that a constant node is computed from."""
    found: dict[fx.Node, None] = {}
    waiting, seen = [node], set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        if one.op == "get_attr":
            found[one] = None
        waiting.extend(one.all_input_nodes)
    return list(found)


def dimensions(node: Any) -> int:
    """Returns how many axes a node's tensor has; -1 of what is no tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dim() if isinstance(value, Tensor) else -1


def order_of_axes(node: fx.Node) -> list[int] | None:
    """Returns in which order an op puts the axes of its one tensor; None if it does something else."""
    dims = dimensions(node)
    order = list(range(dims))
    if node.target in SAME_ENTRIES:
        return order
    if node.target in TRANSPOSES and dims == 2:
        return [1, 0]
    if node.target is aten.permute.default:
        given: Any = node.args[1]
        return [axis % dims for axis in given]
    if node.target is aten.transpose.int:
        first, second = (axis % dims for axis in node.args[1:])  # type: ignore[operator]
        order[first], order[second] = order[second], order[first]
        return order
    return None
