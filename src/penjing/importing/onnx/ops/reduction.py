"""Reductions over axes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from penjing.importing.onnx.node import Form, Node, no_form
from penjing.importing.onnx.ops.table import FORMS, form


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceProd": _prod,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: (x * x).sum(axes, keep).sqrt(),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keep),
}


def _reduction(call: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[[Node], Form]:
    def make(node: Node) -> Form:
        axes = node.setting("axes", 1)
        if not axes and node.attribute("noop_with_empty_axes", 0):
            return node.function(lambda x: x, node.tensor(0))
        axes = axes or list(range(node.rank()))
        keep = bool(node.attribute("keepdims", 1))
        return node.function(lambda x: call(x, axes, keep), node.tensor(0))

    return make


FORMS.update({op: _reduction(call) for op, call in REDUCTIONS.items()})


@form("ArgMax", "ArgMin")
def arg_extreme(node: Node) -> Form:
    """Where the largest or the smallest entry stands."""
    if node.attribute("select_last_index", 0):
        raise no_form(node, "it wants the last of equal entries")
    call: Any = torch.argmax if node.op == "ArgMax" else torch.argmin
    axis, keep = node.attribute("axis", 0), bool(node.attribute("keepdims", 1))
    return node.function(lambda x: call(x, axis, keep), node.tensor(0))


@form("TopK")
def top_k(node: Node) -> Form:
    """The largest or smallest entries, and where they stand."""
    (count,) = node.setting("k", 1)
    axis, largest = node.attribute("axis", -1), bool(node.attribute("largest", 1))
    return node.function(lambda x: tuple(torch.topk(x, count, axis, largest, True)), node.tensor(0))


@form("CumSum")
def cumulative_sum(node: Node) -> Form:
    """Sums of all entries so far."""
    if node.attribute("exclusive", 0) or node.attribute("reverse", 0):
        raise no_form(node, "it counts backwards, or without the entry itself")
    (axis,) = node.setting("axis", 1)
    return node.function(lambda x: x.cumsum(axis, dtype=x.dtype), node.tensor(0))


@form("LpNormalization")
def lp_normalization(node: Node) -> Form:
    """Divides by a norm over an axis; zeros stay zeros."""
    axis, order = node.attribute("axis", -1), node.attribute("p", 2)
    tiny = torch.finfo(torch.float32).tiny
    return node.function(lambda x: x / x.norm(order, axis, keepdim=True).clamp(min=tiny), node.tensor(0))
