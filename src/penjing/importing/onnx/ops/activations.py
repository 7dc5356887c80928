"""Activations."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.importing.onnx.node import Form, Node
from penjing.importing.onnx.ops.table import form, functions

functions(
    Relu=functional.relu,
    Sigmoid=torch.sigmoid,
    Tanh=torch.tanh,
    HardSwish=functional.hardswish,
    Softplus=functional.softplus,
    Softsign=functional.softsign,
    Mish=functional.mish,
    Erf=torch.erf,
)


@form("LeakyRelu")
def leaky_relu(node: Node) -> Form:
    """Leaky ReLU."""
    return node.function(functional.leaky_relu, node.tensor(0), node.attribute("alpha", 0.01))


@form("Elu")
def elu(node: Node) -> Form:
    """ELU."""
    return node.function(functional.elu, node.tensor(0), node.attribute("alpha", 1.0))


@form("Celu")
def celu(node: Node) -> Form:
    """CELU."""
    return node.function(functional.celu, node.tensor(0), node.attribute("alpha", 1.0))


@form("Selu")
def selu(node: Node) -> Form:
    """SELU with any factors."""
    alpha = node.attribute("alpha", 1.67326319217681884765625)
    gamma = node.attribute("gamma", 1.05070102214813232421875)
    return node.function(lambda x: gamma * functional.elu(x, alpha), node.tensor(0))


@form("ThresholdedRelu")
def thresholded_relu(node: Node) -> Form:
    """The input where it is above a threshold, else 0."""
    return node.function(functional.threshold, node.tensor(0), node.attribute("alpha", 1.0), 0.0)


@form("HardSigmoid")
def hard_sigmoid(node: Node) -> Form:
    """A straight line between 0 and 1."""
    slope, offset = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-6 and offset == 0.5:
        return node.function(functional.hardsigmoid, node.tensor(0))
    return node.function(lambda x: (x * slope + offset).clamp(0.0, 1.0), node.tensor(0))


@form("Swish")
def swish(node: Node) -> Form:
    """SiLU, with a factor within the sigmoid."""
    factor = node.attribute("alpha", 1.0)
    if factor == 1.0:
        return node.function(functional.silu, node.tensor(0))
    return node.function(lambda x: x * torch.sigmoid(factor * x), node.tensor(0))


@form("Gelu", "com.microsoft.Gelu", "com.microsoft.FastGelu")
def gelu(node: Node) -> Form:
    """GELU, exact or by tanh."""
    fast = node.op.endswith("FastGelu")
    how = "tanh" if fast else node.attribute("approximate", "none")

    def compute(x: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.gelu(x if bias is None else x + bias, approximate=how)

    return node.function(compute)


@form("PRelu")
def prelu(node: Node) -> Form:
    """PReLU, with one slope, or one a channel where that is how it stands."""
    slope = node.constant(1)
    channels = node.inputs[0].shape[1] if node.rank() > 1 else 1
    wanted = (channels, *(1,) * (node.rank() - 2))
    if slope is not None and (slope.size == 1 or slope.shape in (wanted, (1, *wanted))):
        layer = nn.PReLU(slope.size)
        layer.weight = node.share((node.names[1], "flat"), lambda: torch.tensor(slope.reshape(-1)))
        return node.layer(layer)
    return node.function(lambda x, slope: torch.where(x < 0, x * slope, x))


@form("Clip")
def clip(node: Node) -> Form:
    """Values between two bounds, each of which may be missing."""
    bounds: list[Any] = []
    for position, name in ((1, "min"), (2, "max")):
        if name in node.attributes:
            bounds.append(node.attribute(name))
        elif node.has(position):
            value = node.constant(position)
            bounds.append(node.tensor(position) if value is None else value.reshape(()).item())
        else:
            bounds.append(None)
    if bounds == [None, None]:
        return node.function(lambda x: x, node.tensor(0))
    if bounds == [0, 6]:
        return node.function(functional.relu6, node.tensor(0))
    return node.function(torch.clamp, node.tensor(0), *bounds)


def _softmax(node: Node, call: Any) -> Form:
    axis = node.attribute("axis", -1 if node.opset >= 13 else 1) % max(node.rank(), 1)
    if node.opset >= 13 or axis == node.rank() - 1:
        return node.function(lambda x: call(x, dim=axis), node.tensor(0))
    # Until opset 12, softmax goes over all axes from this one on.
    return node.function(lambda x: call(x.flatten(axis), dim=axis).reshape(x.shape), node.tensor(0))


@form("Softmax")
def softmax(node: Node) -> Form:
    """Softmax."""
    return _softmax(node, torch.softmax)


@form("LogSoftmax")
def log_softmax(node: Node) -> Form:
    """The logarithm of softmax."""
    return _softmax(node, torch.log_softmax)
