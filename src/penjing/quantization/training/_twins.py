"""Functions that replace quantise/dequantise pairs in training: they give the same values, with gradients for the range too.

Each function takes values and the tensors that define its range, and returns rounded reals of the same shape. The names
hold "quantize", by which a training recognises a quantised graph, which it keeps in float32.
"""

import math
from typing import Any

import torch
from torch import Tensor

from penjing.graph import straight_through
from penjing.quantization.grids import SMALLEST_SCALE, Rows, Scaled
from penjing.quantization.weights.choices import find_choice

MOMENTUM = 0.99  # weight of the old range in each batch's update; Jacob et al. ask for a number close to 1


class _Step(torch.autograd.Function):
    """Rounds to multiples of a step; both gradients are those of the LSQ paper."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, step: Tensor, zero_point: Tensor, low: int, high: int, factor: Tensor
    ) -> Tensor:
        real = values * (1.0 / step)
        integers = (real.round() + zero_point).clamp_(low, high).sub_(zero_point)
        ctx.save_for_backward(real, zero_point, factor)
        ctx.ends, ctx.shape = (low, high), step.shape
        return integers.mul_(step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        gradient = gradients[0]
        real, zero_point, factor = ctx.saved_tensors
        low, high = (end - zero_point for end in ctx.ends)
        inside = (real > low) & (real < high)
        to_step = None
        if ctx.needs_input_grad[1]:
            slope = torch.where(inside, real.round() - real, real.maximum(low).minimum(high))
            to_step = (gradient * slope).sum_to_size(ctx.shape) * factor
        return gradient * inside, to_step, None, None, None, None


class _Sign(torch.autograd.Function):
    """Rounds to minus and plus a step; the gradient of the values passes, as through a rounding that clips nothing."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Tensor, factor: float) -> Tensor:
        signs = torch.where(values < 0, -1.0, 1.0).to(values.dtype)
        ctx.save_for_backward(signs)
        ctx.factor, ctx.shape = factor, step.shape
        return signs * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (signs,) = ctx.saved_tensors
        return gradients[0], (gradients[0] * signs).sum_to_size(ctx.shape) * ctx.factor, None


class _Instead(torch.autograd.Function):
    """Returns the second tensor, and passes its gradient to the first."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, instead: Tensor) -> Tensor:
        return instead.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None


class _Clip(torch.autograd.Function):
    """Clips to 0 … bound and rounds; both gradients are those of the PACT paper."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bound: Tensor, steps: int) -> Tensor:
        ctx.save_for_backward(values, bound)
        step = bound / steps
        return (values * (1.0 / step)).round_().clamp_(0, steps).mul_(step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        values, bound = ctx.saved_tensors
        above = values >= bound
        passed = gradients[0] * ((values >= 0) & ~above)
        return passed, (gradients[0] * above).sum_to_size(bound.shape), None


def quantize_by_step(
    values: Tensor,
    step: Tensor,
    zero_point: Tensor | int,
    low: int,
    high: int,
    batched: bool = False,
    learns: bool = True,
) -> Tensor:
    """Rounds to multiples of a learned step size (Esser et al. 2020, arXiv:1902.08153).

    As in the paper, the gradient of the step is multiplied by 1 / √(N · Q_P), where N is the number of values that share the
    step (for an activation, in one sample) and Q_P the largest integer above the zero point. If `learns` is false, the
    step's gradient is zero, and the rounding is a straight-through one.

    Args:
        values: any shape; with more than one step, rows of equal length in the tensor's order.
        step: `(rows,)`, all above 0.
        zero_point: `(rows,)`, or one for all rows.
        low: the smallest integer.
        high: the largest integer.
        batched: whether the first axis counts samples.
        learns: whether the step is learned.
    """
    rows = len(step)
    zero = torch.as_tensor(zero_point, device=values.device).to(values.dtype)
    count = math.prod(values.shape[1:]) if batched else values.numel() // rows
    factor = 1.0 / (max(count, 1) * (high - zero).clamp_min(1)).sqrt() * float(learns)
    if rows == 1:  # without a change of shape, which would copy tensors that aren't contiguous
        rounded: Tensor = _Step.apply(values, step, zero.reshape(-1), low, high, factor.reshape(-1))  # type: ignore
        return rounded
    column = zero.expand(rows)[:, None], factor.expand(rows)[:, None]
    rounded = _Step.apply(values.reshape(rows, -1), step[:, None], column[0], low, high, column[1])  # type: ignore
    return rounded.reshape(values.shape)


def quantize_by_sign(values: Tensor, step: Tensor) -> Tensor:
    """Rounds to minus or plus a learned step, whose gradient is the sum of the gradients times the signs, times 1 / √N.

    N is the number of values that share the step. The weights' gradient passes unchanged, as in BinaryConnect (Courbariaux
    et al. 2015, arXiv:1511.00363); that paper's clipping of weights to −1 … 1 is left out.

    Args:
        values: any shape; with more than one step, rows of equal length in the tensor's order.
        step: `(rows,)`.
    """
    signed: Tensor = _Sign.apply(  # type: ignore
        values.reshape(len(step), -1), step[:, None], 1.0 / math.sqrt(values.numel() / len(step))
    )
    return signed.reshape(values.shape)


def quantize_by_rule(values: Tensor, grid: str, grain: str) -> Tensor:
    """Rounds weights by the grid's own rule, which is applied again at each call; the gradient passes unchanged.

    Args:
        values: a weight.
        grid: name of a grid with codes and scales, "ternary" or "binary".
        grain: name of the grain, which says which weights share a scale.
    """
    choice = find_choice(grid, grain)
    with torch.no_grad():
        laid = choice.grid.lay(Rows(choice.grain.rows(values.detach())))
        assert isinstance(laid, Scaled)
        real = (laid.codes.to(values.dtype) * laid.scale[:, None]).reshape(values.shape)
    instead: Tensor = _Instead.apply(values, real)  # type: ignore
    return instead


def quantize_by_clip(values: Tensor, bound: Tensor, steps: int) -> Tensor:
    """Rounds values from 0 to a learned bound, in this many steps (PACT, Choi et al. 2018, arXiv:1805.06085).

    Args:
        values: any shape.
        bound: `(1,)`, above 0.
        steps: number of steps of the grid.
    """
    clipped: Tensor = _Clip.apply(values, bound, steps)  # type: ignore
    return clipped


def quantize_by_range(values: Tensor, own: Tensor, shared: list[Tensor], low: int, high: int) -> Tensor:
    """Rounds to the grid that covers the shared ranges and 0 (Jacob et al. 2018, arXiv:1712.05877).

    Args:
        values: any shape.
        own: `(2,)`, the smallest and the largest of these values.
        shared: the ranges of all values that share the grid, `own` included.
        low: the smallest integer.
        high: the largest integer.
    """
    ranges = torch.stack(shared)
    least, most = ranges[:, 0].amin().clamp_max(0), ranges[:, 1].amax().clamp_min(0)
    step = ((most - least) / (high - low)).clamp_min(SMALLEST_SCALE)
    zero = (low - (least / step).round()).clamp(low, high)
    return quantize_by_step(values, step.reshape(1), zero, low, high)


def quantize_by_moving_range(values: Tensor, own: Tensor, shared: list[Tensor], low: int, high: int) -> Tensor:
    """Updates the range with the values, then does what `quantize_by_range` does; replaces that function in training mode."""
    with torch.no_grad():
        now = torch.stack([values.detach().amin(), values.detach().amax()]).to(own.dtype)
        own.mul_(MOMENTUM).add_(now, alpha=1 - MOMENTUM)
    return quantize_by_range(values, own, shared, low, high)


straight_through.register(quantize_by_range, quantize_by_moving_range)
