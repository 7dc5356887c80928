"""Ops that cut values off, and where: bounds that are known before anything runs."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from penjing.graph.ops import node_arguments

aten = torch.ops.aten
Interval = tuple[float, float]
EVERYTHING: Interval = (-math.inf, math.inf)


def _clamp(node: fx.Node) -> Interval | None:
    low, high = node_arguments(node)[1:3]
    return _bounds(low, high)


def _clamp_min(node: fx.Node) -> Interval | None:
    return _bounds(node.args[1], None)


def _clamp_max(node: fx.Node) -> Interval | None:
    return _bounds(None, node.args[1])


def _bounds(low: Any, high: Any) -> Interval | None:
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        return None
    return EVERYTHING[0] if low is None else float(low), EVERYTHING[1] if high is None else float(high)


CLIPS: Mapping[Any, Callable[[fx.Node], Interval | None]] = {
    aten.relu.default: lambda node: (0.0, EVERYTHING[1]),
    aten.relu6.default: lambda node: (0.0, 6.0),
    aten.hardtanh.default: _clamp,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp_min,
    aten.clamp_max.default: _clamp_max,
}
"""By ATen op; None where the bounds are computed while the graph runs."""
