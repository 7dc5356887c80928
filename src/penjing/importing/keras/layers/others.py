"""Norms, scales, dropout, padding and what joins values."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.importing.keras.layout import IMAGE, axis_of, to_first, to_last
from penjing.importing.keras.table import Call, form, no_form, parameter, refuse, values

NORMS: dict[int, Any] = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}


class LastAxis(nn.Module):
    """A layer over the second axis or the last one of a value that has its channels in the other place."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Calls the layer with the channels where it wants them."""
        if x.ndim == IMAGE:
            return to_first(self.layer(to_last(x)))
        made: Tensor = self.layer(x.transpose(1, 2))
        return made.transpose(1, 2)


def _axis(call: Call) -> None:
    axis = call.layer.axis
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    if axis not in (-1, call.rank - 1):
        raise no_form(call, f"it normalises along axis {axis}, and only the last one has a form")


@form("BatchNormalization")
def batch_norm(call: Call) -> nn.Module:
    """Batch normalisation over the channels."""
    _axis(call)
    mean, variance = call.weight("moving_mean"), call.weight("moving_variance")
    layer = NORMS.get(call.rank, nn.BatchNorm1d)(len(mean), call.layer.epsilon, 1 - call.layer.momentum)
    layer.running_mean, layer.running_var = mean, variance
    if call.layer.scale:
        layer.weight = parameter(call.weight("gamma"))
    if call.layer.center:
        layer.bias = parameter(call.weight("beta"))
    return LastAxis(layer) if call.rank == 3 else layer


@form("LayerNormalization")
def layer_norm(call: Call) -> nn.Module:
    """Layer normalisation over the last axis."""
    _axis(call)
    width = call.shapes[0][-1]
    assert width is not None
    layer = nn.LayerNorm(width, call.layer.epsilon)
    if call.layer.scale:
        layer.weight = parameter(call.weight("gamma"))
    if call.layer.center:
        layer.bias = parameter(call.weight("beta"))
    return LastAxis(layer) if call.rank == IMAGE else layer


class Scale(nn.Module):
    """Fixed factors and offsets of the channels, such as those of the input's preparation."""

    factor: Tensor
    offset: Tensor

    def __init__(self, factor: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor)
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        """Scales and shifts."""
        return x * self.factor + self.offset


def _along_channels(call: Call, value: Any) -> Tensor:
    given = torch.as_tensor(value, dtype=torch.float32).reshape(-1)
    return (
        given.reshape(-1, 1, 1)
        if call.rank == IMAGE and given.numel() > 1
        else given.reshape(-1 if given.numel() > 1 else ())
    )


@form("Rescaling")
def rescaling(call: Call) -> nn.Module:
    """The input times a scale, and an offset."""
    return Scale(*(_along_channels(call, value) for value in (call.layer.scale, call.layer.offset)))


@form("Normalization")
def normalization(call: Call) -> nn.Module:
    """The input less its mean, by its deviation."""
    refuse(call, invert=False)
    mean, variance = values(call.layer.mean), values(call.layer.variance)
    if mean.numel() not in (1, call.shapes[0][-1]):
        raise no_form(call, "it has a mean for each entry; one for each channel has a form")
    factor = 1 / variance.sqrt().clamp(min=1e-7)
    return Scale(_along_channels(call, factor), _along_channels(call, -mean * factor))


@form("Dropout")
def dropout(call: Call) -> nn.Module:
    """Dropout."""
    return nn.Dropout(call.layer.rate)


@form("SpatialDropout2D")
def spatial_dropout(call: Call) -> nn.Module:
    """Dropout of whole channels."""
    return nn.Dropout2d(call.layer.rate)


@form(
    "Identity", "GaussianNoise", "GaussianDropout", "ActivityRegularization", "RandomFlip", "RandomRotation", "RandomZoom",
    "RandomTranslation", "RandomContrast", "RandomBrightness",
)  # fmt: skip
def identity(_call: Call) -> nn.Module:
    """Nothing: it acts while training alone."""
    return nn.Identity()


@form("ZeroPadding2D")
def zero_padding(call: Call) -> Callable[..., Any]:
    """Zeros around images."""
    refuse(call, data_format="channels_last")
    (top, bottom), (left, right) = call.layer.padding
    return lambda x: functional.pad(x, [left, right, top, bottom])


@form("Cropping2D")
def cropping(call: Call) -> Callable[..., Any]:
    """Images without their margins."""
    refuse(call, data_format="channels_last")
    (top, bottom), (left, right) = call.layer.cropping
    return lambda x: x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


@form("UpSampling2D")
def upsampling(call: Call) -> Callable[..., Any]:
    """Larger images."""
    refuse(call, data_format="channels_last")
    how, factors = call.layer.interpolation, [float(one) for one in call.layer.size]
    if how == "nearest":
        return lambda x: functional.interpolate(x, scale_factor=factors, mode="nearest")
    if how != "bilinear":
        raise no_form(call, f"it interpolates by '{how}'")
    return lambda x: functional.interpolate(x, scale_factor=factors, mode="bilinear", align_corners=False)


def _folded(call: Callable[[Any, Any], Any]) -> Callable[[Call], Callable[..., Any]]:
    def make(given: Call) -> Callable[..., Any]:
        if len({len(shape) for shape in given.shapes}) > 1:
            raise no_form(given, f"its inputs have different numbers of axes ({given.shapes})")
        return lambda *xs: functools.reduce(call, xs)

    return make


form("Add")(_folded(operator.add))
form("Subtract")(_folded(operator.sub))
form("Multiply")(_folded(operator.mul))
form("Divide", "TrueDivide")(_folded(operator.truediv))
form("Maximum")(_folded(torch.maximum))
form("Minimum")(_folded(torch.minimum))


@form("Average")
def average(call: Call) -> Callable[..., Any]:
    """The mean of several values."""
    total = _folded(operator.add)(call)
    return lambda *xs: total(*xs) / len(xs)


@form("Concatenate")
def concatenate(call: Call) -> Callable[..., Any]:
    """Values side by side."""
    axis = axis_of(call.layer.axis, call.rank)
    return lambda *xs: torch.cat(xs, axis)


@form("Permute")
def permute(call: Call) -> Callable[..., Any]:
    """Another order of axes."""
    order = (0, *call.layer.dims)
    return lambda x: to_first(to_last(x).permute(order))


@form("RepeatVector")
def repeat_vector(call: Call) -> Callable[..., Any]:
    """A vector at each of some steps."""
    times = call.layer.n
    return lambda x: x[:, None].expand(-1, times, -1)
