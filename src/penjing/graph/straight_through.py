"""Straight-through twins of the quantise and dequantise ops: the same values, and a gradient.

The plain ops round to an integer tensor, which has no gradient. A twin computes the same numbers in floating point and
lets the gradient pass where the value was not clipped (Bengio et al., "Estimating or Propagating Gradients Through
Stochastic Neurons for Conditional Computation", 2013).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

ops = torch.ops.quantized_decomposed


def _round(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def _per_channel(values: Tensor, axis: int, rank: int) -> Tensor:
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def quantize_per_tensor(x: Tensor, scale: float, zero_point: int, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """Integers of `x` as floats, clipped to `low`…`high`; same shape as `x`."""
    return (_round(x * (1.0 / scale)) + zero_point).clamp(low, high)


def dequantize_per_tensor(
    q: Tensor, scale: float, zero_point: int, low: int, high: int, dtype: torch.dtype, **_: Any
) -> Tensor:
    """Real values of the integers `q` (held as floats); same shape as `q`."""
    return (q - zero_point) * scale


def quantize_per_channel(
    x: Tensor, scales: Tensor, zero_points: Tensor, axis: int, low: int, high: int, dtype: torch.dtype
) -> Tensor:
    """Like `quantize_per_tensor` with one scale and zero point per index of `axis`."""
    scale, zero = (_per_channel(v.to(x.dtype), axis, x.dim()) for v in (scales, zero_points))
    return (_round(x * (1.0 / scale)) + zero).clamp(low, high)


def dequantize_per_channel(
    q: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    axis: int,
    low: int,
    high: int,
    dtype: torch.dtype,
    **_: Any,
) -> Tensor:
    """Like `dequantize_per_tensor` with one scale and zero point per index of `axis`."""
    scale, q = _per_channel(scales, axis, q.dim()), q.to(scales.dtype)  # stored codes come as integers
    return q * scale if zero_points is None else (q - _per_channel(zero_points.to(q.dtype), axis, q.dim())) * scale


def quantize_per_channel_group(
    x: Tensor, scales: Tensor, zero_points: Tensor, low: int, high: int, dtype: torch.dtype, group_size: int
) -> Tensor:
    """Like `quantize_per_tensor` with one scale and zero point for each run of `group_size` entries of a row."""
    scale, zero = (values.reshape(-1, 1).to(x.dtype) for values in (scales, zero_points))
    return (_round(x.reshape(-1, group_size) * (1.0 / scale) + zero)).clamp(low, high).reshape(x.shape)


def dequantize_per_channel_group(
    q: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    low: int,
    high: int,
    dtype: torch.dtype,
    group_size: int,
    output_dtype: torch.dtype,
) -> Tensor:
    """Like `dequantize_per_tensor` with one scale and zero point for each run of `group_size` entries of a row."""
    groups = q.reshape(-1, group_size).to(scales.dtype)
    if zero_points is not None:
        groups = groups - zero_points.reshape(-1, 1).to(scales.dtype)
    return (groups * scales.reshape(-1, 1)).reshape(q.shape)


def choose_qparams(x: Tensor, low: int, high: int, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale and zero point, `(1,)` each, of the range of `x`, which has no gradient."""
    with torch.no_grad():
        found: tuple[Tensor, Tensor] = ops.choose_qparams.tensor(x.detach().float(), low, high, eps, dtype)
    return found


def quantize_to_range(x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """Like `quantize_per_tensor` with a scale and zero point that were found at run time."""
    return (_round(x * (1.0 / scale).to(x.dtype)) + zero_point.to(x.dtype)).clamp(low, high)


def dequantize_from_range(
    q: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int, dtype: torch.dtype, **_: Any
) -> Tensor:
    """Like `dequantize_per_tensor` with a scale and zero point that were found at run time."""
    return (q - zero_point.to(q.dtype)) * scale.to(q.dtype)


def choose_qparams_per_token(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scales and zero points `(…, 1)` of the rows of `x`, which have no gradient."""
    with torch.no_grad():
        found: tuple[Tensor, Tensor] = ops.choose_qparams_per_token.default(x.detach(), dtype)
    return found


def quantize_per_token(
    x: Tensor, scales: Tensor, zero_points: Tensor, low: int, high: int, dtype: torch.dtype
) -> Tensor:
    """Like `quantize_per_tensor` with one scale and zero point per row."""
    return _round(x * (1.0 / scales) + zero_points).clamp(low, high)


def dequantize_per_token(
    q: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    low: int,
    high: int,
    dtype: torch.dtype,
    output_dtype: torch.dtype,
) -> Tensor:
    """Like `dequantize_per_tensor` with one scale and zero point per row."""
    return (q - zero_points) * scales


TWINS: dict[Any, Callable[..., Any]] = {
    ops.quantize_per_tensor.default: quantize_per_tensor,
    ops.dequantize_per_tensor.default: dequantize_per_tensor,
    ops.quantize_per_channel.default: quantize_per_channel,
    ops.dequantize_per_channel.default: dequantize_per_channel,
    ops.quantize_per_channel_group.default: quantize_per_channel_group,
    ops.dequantize_per_channel_group.default: dequantize_per_channel_group,
    ops.choose_qparams.tensor: choose_qparams,
    ops.quantize_per_tensor.tensor: quantize_to_range,
    ops.dequantize_per_tensor.tensor: dequantize_from_range,
    ops.choose_qparams_per_token.default: choose_qparams_per_token,
    ops.quantize_per_token.default: quantize_per_token,
    ops.dequantize_per_token.default: dequantize_per_token,
}
_PLAIN = {twin: plain for plain, twin in TWINS.items()}


def register(plain: Callable[..., Any], twin: Callable[..., Any]) -> None:
    """Lets `twin` take the place of `plain` while training; both take the same arguments."""
    TWINS[plain], _PLAIN[twin] = twin, plain


def swap(target: Any, training: bool) -> Any:
    """Returns what takes the place of `target` in the given mode; other targets come back as they are."""
    return TWINS.get(target, target) if training else _PLAIN.get(target, target)
