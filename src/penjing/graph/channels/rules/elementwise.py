"""Ops that act on each entry separately; broadcasting ties several operands to each other."""

from typing import Any

import numpy as np
import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

from penjing.graph.channels.rules.table import Axes, Axis, Labelling, Value, rule

aten = torch.ops.aten

_NAMES = """
abs add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Scalar rsub.Tensor mul.Tensor mul.Scalar div.Tensor div.Scalar
div.Tensor_mode pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar neg exp expm1 log log1p log2 sqrt rsqrt reciprocal
square sin cos tanh sigmoid relu relu6 gelu silu mish elu selu celu leaky_relu hardtanh hardswish hardsigmoid
softplus softsign logsigmoid log_sigmoid erf floor ceil round sign clamp clamp.Tensor clamp_min clamp_max maximum
minimum where.self where.ScalarOther where.ScalarSelf where.Scalar masked_fill.Scalar masked_fill.Tensor eq.Tensor
eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor gt.Scalar ge.Tensor ge.Scalar
logical_and logical_or logical_not bitwise_not detach alias bitwise_and.Tensor bitwise_or.Tensor isnan isinf
dropout alpha_dropout feature_dropout feature_alpha_dropout clone contiguous to.dtype to.device to.dtype_layout
to.other type_as _to_copy fill.Scalar fill.Tensor zeros_like ones_like full_like rand_like randn_like
threshold hardshrink softshrink rrelu addcmul addcdiv lerp.Scalar lerp.Tensor atan2 fmod.Scalar remainder.Scalar
nan_to_num float_power.Tensor_Scalar copy isfinite frac trunc bernoulli.p logaddexp xlogy.Tensor heaviside lerp.Tensor
bitwise_or.Scalar bitwise_and.Scalar __and__.Tensor __or__.Tensor __xor__.Tensor zero
floor_divide floor_divide.Scalar div.Scalar_mode remainder.Tensor fmod.Tensor bitwise_xor.Tensor exp2 clip clip.Tensor
clamp_min.Tensor clamp_max.Tensor true_divide.Tensor true_divide.Scalar multiply.Tensor multiply.Scalar subtract.Tensor
subtract.Scalar divide.Tensor divide.Scalar absolute negative fix hypot copysign.Tensor sinc lgamma
logical_xor asin acos atan sinh cosh asinh acosh atanh tan log10 erfc sgn
"""


def broadcast(labelling: Labelling, *operands: Value) -> Axes:
    """Ties operands as broadcasting aligns them and returns the axes of the result.

    An axis of size 1 that meets a longer one is used by all indices of the longer one, so it must stay.
    """
    rank = max(len(value.shape) for value in operands)
    result: list[Axis] = []
    for back in range(rank, 0, -1):
        present = [(value.axes[-back], value.shape[-back]) for value in operands if len(value.shape) >= back]
        longest = max(size for _, size in present)
        full = [axis for axis, size in present if size == longest]
        for axis, size in present:
            if size != longest:
                labelling.pin(axis)
        for other in full[1:]:
            labelling.tie(full[0], other)
        result.append(full[0] if all(axis is not None for axis in full) else None)
    return tuple(result)


def _elementwise(labelling: Labelling, *arguments: Any) -> Axes:
    return broadcast(labelling, *(value for value in arguments if isinstance(value, Value)))


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    found = getattr(aten, packet, None)
    return getattr(found, overload or "default", None) if found is not None else None


rule(*(op for op in map(_overload, _NAMES.split()) if op is not None), tiled=True)(_elementwise)


@rule(aten.expand_as.default)
def expand_as(labelling: Labelling, x: Value, other: Value) -> Axes:
    """Expands to the shape of `other`; pins each index that becomes several."""
    lead = len(other.shape) - len(x.shape)
    for axis, size, wanted in zip(x.axes, x.shape, other.shape[lead:], strict=True):
        if size != wanted:
            labelling.pin(axis)
    return broadcast(labelling, x, other)


@rule(aten.prelu.default)
def prelu(labelling: Labelling, x: Value, weight: Value) -> Axes:
    """One slope per channel, or one for all."""
    if weight.shape == (1,):
        labelling.pin(weight.axes[0])
        return x.axes
    labelling.tie(x.axes[1], weight.axes[0])
    labelling.role(weight, 0, "scale")
    return x.axes


@rule(aten.glu.default)
def glu(labelling: Labelling, x: Value, axis: int) -> Axes:
    """The second half gates the first, so index i is tied to index i + n/2."""
    labels = x.axes[axis]
    if labels is None:
        return x.axes
    first, second = np.split(labels, 2)
    labelling.tie(first, second)
    axis %= len(x.axes)
    return (*x.axes[:axis], first, *x.axes[axis + 1 :])


QUANTIZED = torch.ops.quantized_decomposed


@rule(QUANTIZED.choose_qparams.tensor)
def range_of(labelling: Labelling, x: Value, *_: Any) -> list[Axes]:
    """Finds one scale and zero point for all entries from their range."""
    return [(None,), (None,)]


@rule(
    QUANTIZED.quantize_per_tensor.default,
    QUANTIZED.dequantize_per_tensor.default,
    QUANTIZED.quantize_per_tensor.tensor,
    QUANTIZED.dequantize_per_tensor.tensor,
)
def per_tensor(labelling: Labelling, x: Value, *_: Any) -> Axes:
    """One scale for all entries."""
    return x.axes


@rule(QUANTIZED.quantize_per_channel.default, QUANTIZED.dequantize_per_channel.default)
def per_channel(labelling: Labelling, x: Value, scales: Value, zero_points: Value | None, axis: int, *_: Any) -> Axes:
    """One scale per index of an axis."""
    for constant in (scales, zero_points):
        if constant is not None:
            labelling.tie(x.axes[axis], constant.axes[0])
    return x.axes
