"""Convolutions and dense layers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.importing.keras.layout import IMAGE, same_padding, to_first, to_last
from penjing.importing.keras.table import Call, form, no_form, parameter, refuse
from penjing.importing.network import Padded

CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d}


def _as_pair(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,) * axes


def _padded(layer: nn.Module, pads: Callable[[Sequence[int]], tuple[list[int], list[int]]]) -> Padded:
    """Returns a layer behind a padding of the widths that `pads` tells for a size, before and behind each axis."""

    def pad(x: Tensor) -> Tensor:
        before, after = pads(x.shape[2:])
        return functional.pad(x, [one for pair in zip(reversed(before), reversed(after), strict=True) for one in pair])

    return Padded(layer, pad)


class OverSteps(nn.Module):
    """A layer over (batch, channels, steps) for values of (batch, steps, channels)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Calls the layer between two transpositions."""
        made: Tensor = self.layer(x.transpose(1, 2))
        return made.transpose(1, 2)


def _convolution(call: Call, weight: Tensor, bias: Tensor | None, groups: int) -> nn.Module:
    """Returns a convolution with this weight, (outputs, inputs / groups, …)."""
    refuse(call, data_format="channels_last")
    axes, kernel = weight.ndim - 2, tuple(weight.shape[2:])
    strides = _as_pair(call.layer.strides, axes)
    dilations = _as_pair(call.layer.dilation_rate, axes)
    layer = CONVOLUTIONS[axes](
        weight.shape[1] * groups, weight.shape[0], kernel, strides, 0, dilations, groups, bias=bias is not None
    )
    layer.weight = parameter(weight)
    if bias is not None:
        layer.bias = parameter(bias)
    made = _with_padding(call, layer, kernel, strides, dilations)
    return OverSteps(made) if axes == 1 else made


def _with_padding(call: Call, layer: Any, kernel: Any, strides: Any, dilations: Any) -> nn.Module:
    how = call.layer.padding
    if how == "valid":
        return layer  # type: ignore[no-any-return]
    if how == "causal":
        before = [(kernel[0] - 1) * dilations[0]]
        return _padded(layer, lambda _sizes: (before, [0]))
    sizes = call.shapes[0][1:-1]
    free = any(size is None for size in sizes) and any(stride != 1 for stride in strides)
    # Where no stride is taken the padding is the same for all sizes that the kernel fits in.
    known = [max(kernel) * max(dilations) if size is None else size for size in sizes]
    before, after = same_padding(known, kernel, strides, dilations)  # type: ignore[arg-type]
    if before == after and not free:
        layer.padding = tuple(before)
        return layer  # type: ignore[no-any-return]
    if not free:
        return _padded(layer, lambda _sizes: (before, after))
    return _padded(layer, lambda sizes: same_padding(sizes, kernel, strides, dilations))


def _bias(call: Call) -> Tensor | None:
    return call.weight("bias") if call.layer.use_bias else None


@form("Conv1D", "Conv2D")
def convolution(call: Call) -> nn.Module:
    """A convolution; Keras' kernel is (…, inputs, outputs)."""
    kernel = call.weight("kernel")
    axes = kernel.ndim - 2
    return _convolution(call, kernel.permute(axes + 1, axes, *range(axes)), _bias(call), call.layer.groups)


@form("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_convolution(call: Call) -> nn.Module:
    """A convolution of each channel alone; Keras' kernel is (…, channels, multiplier)."""
    return _convolution(call, _depthwise(call.weight("kernel")), _bias(call), int(call.weight("kernel").shape[-2]))


def _depthwise(kernel: Tensor) -> Tensor:
    axes = kernel.ndim - 2
    return kernel.permute(axes, axes + 1, *range(axes)).reshape(-1, 1, *kernel.shape[:axes])


@form("SeparableConv2D")
def separable_convolution(call: Call) -> nn.Module:
    """A depthwise convolution, and one of 1x1."""
    depthwise, pointwise = call.weight("depthwise_kernel"), call.weight("pointwise_kernel")
    first = _convolution(call, _depthwise(depthwise), None, depthwise.shape[2])
    second = nn.Conv2d(pointwise.shape[2], pointwise.shape[3], 1, bias=call.layer.use_bias)
    second.weight = parameter(pointwise.permute(3, 2, 0, 1))
    if call.layer.use_bias:
        second.bias = parameter(call.weight("bias"))
    return nn.Sequential(first, second)


@form("Conv2DTranspose")
def transposed_convolution(call: Call) -> nn.Module:
    """A transposed convolution; Keras' kernel is (height, width, outputs, inputs)."""
    refuse(call, data_format="channels_last", output_padding=None)
    kernel = call.weight("kernel")
    sizes: Any = tuple(kernel.shape[:2])
    strides: Any = _as_pair(call.layer.strides, 2)
    if _as_pair(call.layer.dilation_rate, 2) != (1, 1):
        raise no_form(call, f"it has dilation_rate={call.layer.dilation_rate}")
    same = call.layer.padding == "same"
    more: Any = tuple(max(stride - size, 0) for size, stride in zip(sizes, strides, strict=True))
    layer = nn.ConvTranspose2d(kernel.shape[3], kernel.shape[2], sizes, strides, 0, more, bias=call.layer.use_bias)
    layer.weight = parameter(kernel.permute(3, 2, 0, 1))
    if call.layer.use_bias:
        layer.bias = parameter(call.weight("bias"))
    cuts = [max(size - stride, 0) if same else 0 for size, stride in zip(sizes, strides, strict=True)]
    return Cut(layer, cuts) if any(cuts) else layer


class Cut(nn.Module):
    """A layer of whose outputs some are cut at both ends, the odd one at the far end."""

    def __init__(self, layer: nn.Module, cuts: list[int]) -> None:
        super().__init__()
        self.layer, self._cuts = layer, cuts

    def forward(self, x: Tensor) -> Tensor:
        """Calls the layer and cuts."""
        x = self.layer(x)
        for axis, cut in enumerate(self._cuts, 2):
            x = x.narrow(axis, cut // 2, x.shape[axis] - cut)
        return x


@form("Dense")
def dense(call: Call) -> nn.Module:
    """A product with a matrix; over images' channels as a convolution of 1x1."""
    if getattr(call.layer, "quantization_mode", None):
        raise no_form(call, "it is quantised; give the float model")
    kernel, bias = call.weight("kernel"), _bias(call)
    layer: Any
    if call.rank == IMAGE:
        layer = nn.Conv2d(kernel.shape[0], kernel.shape[1], 1, bias=bias is not None)
        layer.weight = parameter(kernel.t()[:, :, None, None])
    else:
        if call.flattened is not None:
            kernel = kernel.reshape(*call.flattened, -1).permute(2, 0, 1, 3).reshape(kernel.shape)
        layer = nn.Linear(kernel.shape[0], kernel.shape[1], bias=bias is not None)
        layer.weight = parameter(kernel.t())
    if bias is not None:
        layer.bias = parameter(bias)
    return layer  # type: ignore[no-any-return]


@form("Embedding")
def embedding(call: Call) -> nn.Module:
    """Rows of a table."""
    refuse(call, mask_zero=False)
    table = call.weight("embeddings")
    layer = nn.Embedding(table.shape[0], table.shape[1])
    layer.weight = parameter(table)
    return layer


@form("Flatten")
def flatten(call: Call) -> Callable[..., Any]:
    """One axis for all but the batch, in Keras' order unless dense layers that follow have another."""
    if call.flattened is not None:
        return lambda x: torch.flatten(x, 1)
    return lambda x: to_last(x).flatten(1) if x.ndim > 1 else x[:, None]


@form("Reshape")
def reshape(call: Call) -> Callable[..., Any]:
    """Another shape, in Keras' order."""
    wanted = list(call.layer.target_shape)
    if call.rank == 2 and len(wanted) == IMAGE - 1 and wanted[:2] == [1, 1]:
        return lambda x: x[:, :, None, None]
    return lambda x: to_first(to_last(x).reshape(x.shape[0], *wanted))
