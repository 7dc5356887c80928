"""Pooling."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.importing.keras.file import imported
from penjing.importing.keras.layout import same_padding
from penjing.importing.keras.table import Call, form, refuse


def _pooling(call: Call, functions: tuple[Any, Any], filling: float) -> Callable[..., Any]:
    refuse(call, data_format="channels_last")
    axes = call.rank - 2
    window, strides = list(call.layer.pool_size), list(call.layer.strides)
    pool = functions[axes - 1]
    same, mean = call.layer.padding == "same", filling == 0
    repeats = imported().backend.backend() == "torch"  # which counts edges twice where its padding is uneven

    def over(x: Tensor) -> Tensor:
        before, after = same_padding(x.shape[2:], window, strides, [1] * axes) if same else ([0] * axes, [0] * axes)
        if not any((*before, *after)):
            made: Tensor = pool(x, window, strides)
            return made
        ends = [one for pair in zip(reversed(before), reversed(after), strict=True) for one in pair]
        if mean and repeats and before != after:
            made = pool(functional.pad(x, ends, mode="replicate"), window, strides)
            return made
        made = pool(functional.pad(x, ends, value=filling), window, strides)
        # A mean counts what lies within the image alone.
        return made / pool(functional.pad(torch.ones_like(x[:1, :1]), ends), window, strides) if mean else made

    return over if axes > 1 else lambda x: over(x.transpose(1, 2)).transpose(1, 2)


@form("MaxPooling1D", "MaxPooling2D")
def max_pooling(call: Call) -> Callable[..., Any]:
    """The maximum in each window."""
    if call.rank == 4 and call.layer.padding == "valid":
        refuse(call, data_format="channels_last")
        return nn.MaxPool2d(tuple(call.layer.pool_size), tuple(call.layer.strides))
    return _pooling(call, (functional.max_pool1d, functional.max_pool2d), float("-inf"))


@form("AveragePooling1D", "AveragePooling2D")
def average_pooling(call: Call) -> Callable[..., Any]:
    """The mean of each window."""
    if call.rank == 4 and call.layer.padding == "valid":
        refuse(call, data_format="channels_last")
        return nn.AvgPool2d(tuple(call.layer.pool_size), tuple(call.layer.strides))
    return _pooling(call, (functional.avg_pool1d, functional.avg_pool2d), 0.0)


def _axes(call: Call) -> list[int]:
    refuse(call, data_format="channels_last")
    return [2, 3] if call.rank == 4 else [1]


@form("GlobalAveragePooling1D", "GlobalAveragePooling2D")
def global_average_pooling(call: Call) -> Callable[..., Any]:
    """The mean of each channel."""
    axes, keep = _axes(call), call.layer.keepdims
    return lambda x: x.mean(axes, keep)


@form("GlobalMaxPooling1D", "GlobalMaxPooling2D")
def global_max_pooling(call: Call) -> Callable[..., Any]:
    """The maximum of each channel."""
    axes, keep = _axes(call), call.layer.keepdims
    return lambda x: x.amax(axes, keep)
