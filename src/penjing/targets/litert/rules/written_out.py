"""Ops that the file format lacks, written out in ops that it has."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.targets.litert._lowering import Lowering
from penjing.targets.litert.rules._table import rule

aten = torch.ops.aten


def written_out(*targets: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function that computes what these ops compute, with their arguments, in other ops."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @rule(*targets)
        def write(lowering: Lowering, node: fx.Node) -> None:
            lowering.expand(node, function)

        return function

    return add


@written_out(aten.scaled_dot_product_attention.default)
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Computes softmax(q kᵀ / √d + mask) v."""
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = (one.repeat_interleave(times, -3) for one in (key, value))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        kept = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        scores = scores + torch.zeros(kept.shape).masked_fill(~kept, torch.finfo(torch.float32).min)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = torch.where(attn_mask, scores, torch.finfo(torch.float32).min)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, -1), value)


@written_out(aten.silu.default)
def silu(x: Tensor) -> Tensor:
    """Computes x · sigmoid(x)."""
    return x * torch.sigmoid(x)


@written_out(aten.prelu.default, aten._prelu_kernel.default)
def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """Computes max(x, 0) + weight · min(x, 0), with a weight per channel."""
    if weight.numel() > 1 and weight.dim() == 1:
        weight = weight.reshape((-1, *(1,) * (x.dim() - 2)))
    return torch.clamp(x, min=0.0) + weight * torch.clamp(x, max=0.0)


@written_out(aten.layer_norm.default)
def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """Computes (x − mean) / √(variance + ε) over the last axes."""
    axes = [-1 - place for place in range(len(normalized_shape))]
    centred = x - x.mean(axes, keepdim=True)
    out = centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


@written_out(aten.rms_norm.default)
def rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Computes x / √(mean of squares + ε) over the last axes."""
    axes = [-1 - place for place in range(len(normalized_shape))]
    least = torch.finfo(x.dtype).eps if eps is None else eps
    out = x * torch.rsqrt((x * x).mean(axes, keepdim=True) + least)
    return out if weight is None else out * weight


@written_out(aten.group_norm.default)
def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Computes (x − mean) / √(variance + ε) over the channels of each group and all places."""
    rows = x.reshape(x.shape[0], num_groups, -1)
    centred = rows - rows.mean([-1], keepdim=True)
    out = centred * torch.rsqrt((centred * centred).mean([-1], keepdim=True) + eps)
    return _per_channel(out.reshape(x.shape), weight, bias)


@written_out(aten.batch_norm.default)
def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """Computes a factor and a summand per channel; both are constants."""
    factor = torch.rsqrt(running_var + eps) * (1.0 if weight is None else weight)
    summand = (0.0 if bias is None else bias) - running_mean * factor
    return _per_channel(x, factor, summand)


def _per_channel(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (-1, *(1,) * (x.dim() - 2))
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


@written_out(aten.stack.default)
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenates along a new axis."""
    return torch.cat([one.unsqueeze(dim) for one in tensors], dim)


@written_out(aten.pixel_shuffle.default)
def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """Moves channels into a finer image."""
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels // factor**2, factor, factor, height, width)
    return parts.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels // factor**2, height * factor, width * factor)


@written_out(aten.roll.default)
def roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    """Moves the last entries of axes to their front."""
    for shift, axis in zip(shifts, dims, strict=True):
        size = x.shape[axis]
        cut = (size - shift) % size
        if cut:
            x = torch.cat([x.narrow(axis, cut, size - cut), x.narrow(axis, 0, cut)], axis)
    return x


@written_out(aten.instance_norm.default)
def instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """Computes (x − mean) / √(variance + ε) over the places of each channel, or with kept statistics."""
    if not use_input_stats and running_mean is not None and running_var is not None:
        return batch_norm(x, weight, bias, running_mean, running_var, False, momentum, eps, False)
    return group_norm(x, x.shape[1], weight, bias, eps)


@written_out(aten.var.correction, aten.var.dim)
def variance(x: Tensor, dim: Any = None, unbiased: Any = True, keepdim: bool = False, *, correction: Any = 1) -> Tensor:
    """Computes the mean squared distance from the mean."""
    axes = list(range(x.dim())) if dim is None else list(dim)
    return _squares(x, axes, 0.0 if not unbiased else 1.0 if correction is None else float(correction), keepdim)


@written_out(aten.std.correction, aten.std.dim)
def deviation(
    x: Tensor, dim: Any = None, unbiased: Any = True, keepdim: bool = False, *, correction: Any = 1
) -> Tensor:
    """Computes the root of the variance."""
    return torch.sqrt(variance(x, dim, unbiased, keepdim, correction=correction))


def _squares(x: Tensor, axes: list[int], correction: float, keepdim: bool) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    count = math.prod(x.shape[axis] for axis in axes)
    return (centred * centred).sum(axes, keepdim=keepdim) * (1 / (count - correction))


@written_out(aten.linalg_vector_norm.default)
def vector_norm(x: Tensor, p: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Computes the root of the sum of squares, the sum of magnitudes, or the largest or smallest magnitude."""
    axes = list(range(x.dim())) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    if p == 2:
        return torch.sqrt((x * x).sum(axes, keepdim=keepdim))
    if math.isinf(p):
        magnitudes = x.abs()
        return magnitudes.amax(axes, keepdim) if p > 0 else magnitudes.amin(axes, keepdim)
    total = (x.abs() ** p).sum(axes, keepdim=keepdim)
    return total if p == 1 else total ** (1 / p)


@written_out(aten.cdist.default)
def distances(left: Tensor, right: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Tensor:
    """Computes the distance of each row from each row as the norm of their difference."""
    return vector_norm(left.unsqueeze(-2) - right.unsqueeze(-3), p, [-1])


@written_out(aten.max.dim)
def largest(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Takes the largest value and its position."""
    return x.amax(dim, keepdim), x.argmax(dim, keepdim)


@written_out(aten.min.dim)
def smallest(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Takes the smallest value and its position."""
    return x.amin(dim, keepdim), x.argmin(dim, keepdim)


@written_out(aten.softplus.default)
def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """Computes log(1 + exp(β x)) / β, in a form that doesn't overflow."""
    scaled = x * beta
    return (torch.clamp(scaled, min=0.0) + torch.log(1 + torch.exp(-scaled.abs()))) * (1 / beta)


@written_out(aten.mish.default)
def mish(x: Tensor) -> Tensor:
    """Computes x · tanh(log(1 + exp(x)))."""
    return x * torch.tanh(softplus(x))
