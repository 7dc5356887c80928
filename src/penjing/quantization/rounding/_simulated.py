"""Computes nodes of a quantised graph so that gradients pass through and no value is overwritten."""

from typing import Any

import torch
from torch import Tensor, fx

from penjing.graph.straight_through import ops
from penjing.graph.taps import Execution
from penjing.quantization.calibration.running import is_pair


def with_gradients(execution: Execution, n: fx.Node) -> Any:
    """Computes one node; an activation is quantised and dequantised in one step, with a straight-through gradient."""
    if n.target is ops.quantize_per_tensor.default and is_pair(n):
        x, scale, zero_point, low, high, _ = execution.arguments(n)
        return _Rounded.apply(x, scale, low - zero_point, high - zero_point)
    if n.target is ops.dequantize_per_tensor.default and is_pair(n.args[0]):
        return execution.arguments(n)[0]
    return execution.usual(n)


class _Rounded(torch.autograd.Function):
    """Rounds to the nearest value of a grid; the gradient passes where the value wasn't clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, low: int, high: int) -> Tensor:
        steps = (x * (1.0 / scale)).round_()
        clipped = steps.clamp(low, high)
        ctx.save_for_backward(clipped == steps)
        return clipped.mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None
