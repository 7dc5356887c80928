"""Activations, as layers and as the `activation` of others."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from penjing.importing.keras.layout import axis_of
from penjing.importing.keras.table import Call, form, no_form, parameter

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "elu": functional.elu,
    "selu": functional.selu,
    "celu": functional.celu,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "mish": functional.mish,
    "exponential": torch.exp,
    "hard_sigmoid": functional.hardsigmoid,
    "hard_silu": functional.hardswish,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
}
ALONG = {"softmax": torch.softmax, "log_softmax": torch.log_softmax}


def activation(call: Call, function: Any, rank: int) -> Callable[..., Any] | None:
    """Returns an activation of a value of so many axes; None where it does nothing.

    Raises:
        PenjingError: it has no form.
    """
    name = "linear" if function is None else getattr(function, "__name__", type(function).__name__)
    if name == "linear":
        return None
    if name in ALONG:
        along, axis = ALONG[name], axis_of(-1, rank)
        return lambda x: along(x, axis)
    if name not in ACTIVATIONS:
        raise no_form(call, f"its activation '{name}' has no form (known: {', '.join([*ACTIVATIONS, *ALONG])})")
    return ACTIVATIONS[name]


@form("Activation")
def activation_layer(call: Call) -> Callable[..., Any]:
    """An activation by its name."""
    return activation(call, call.layer.activation, call.rank) or nn.Identity()


@form("ReLU")
def relu(call: Call) -> Callable[..., Any]:
    """ReLU, cut off above or with a slope below."""
    top, slope, start = call.layer.max_value, float(call.layer.negative_slope), float(call.layer.threshold)
    if start:
        raise no_form(call, f"it begins at the threshold {start}")
    if top is None:
        return functional.relu if not slope else lambda x: functional.leaky_relu(x, slope)
    if top == 6 and not slope:
        return functional.relu6
    return lambda x: functional.leaky_relu(x, slope).clamp(max=float(top))


@form("LeakyReLU")
def leaky_relu(call: Call) -> Callable[..., Any]:
    """Leaky ReLU."""
    slope = float(call.layer.negative_slope)
    return lambda x: functional.leaky_relu(x, slope)


@form("ELU")
def elu(call: Call) -> Callable[..., Any]:
    """ELU."""
    alpha = float(call.layer.alpha)
    return lambda x: functional.elu(x, alpha)


@form("PReLU")
def prelu(call: Call) -> nn.Module:
    """PReLU with a slope for each channel."""
    slope = call.weight("alpha")
    if slope.numel() != slope.shape[-1] or call.rank == 3:
        raise no_form(call, "it has a slope for each entry; shared_axes of all axes but the channels have a form")
    layer = nn.PReLU(slope.numel())
    layer.weight = parameter(slope.reshape(-1))
    return layer


@form("Softmax")
def softmax(call: Call) -> Callable[..., Any]:
    """Softmax over an axis."""
    axis = call.layer.axis
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    if not isinstance(axis, int):
        raise no_form(call, f"it goes over several axes ({axis})")
    place = axis_of(axis, call.rank)
    return lambda x: torch.softmax(x, place)
