"""Layers with weights: convolutions, products with matrices, normalisation."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.importing.network import Padded
from penjing.importing.onnx.node import Form, Node, no_form
from penjing.importing.onnx.ops.pooling import Window
from penjing.importing.onnx.ops.table import form

CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
FUNCTIONS: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
NORMS: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def _parameter(node: Node, position: int, way: str = "as it is", change: Any = lambda value: value) -> nn.Parameter:
    """Returns a constant input as a parameter, tied with all others that are made of the same constant in the same way."""
    value = node.wanted_constant(position)
    return node.share((node.names[position], way), lambda: torch.tensor(np.ascontiguousarray(change(value))))


@form("Conv", "com.microsoft.FusedConv")
def convolution(node: Node) -> Form:
    """A convolution."""
    if node.attribute("activation") or node.has(3):
        raise no_form(node, "a runtime joined an activation or a sum to it; give the file from before that")
    weight = node.constant(1)
    if weight is None:
        return _computed_convolution(node)
    axes, groups = weight.ndim - 2, node.attribute("group", 1)
    window = Window(node, list(weight.shape[2:]))
    layer = CONVOLUTIONS[axes](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(window.kernel),
        tuple(window.strides),
        tuple(window.before) if window.is_even else 0,
        tuple(window.dilations),
        groups,
        bias=node.has(2),
    )
    layer.weight = _parameter(node, 1)
    if node.has(2):
        layer.bias = _parameter(node, 2)
    return node.layer(layer if window.is_even else Padded(layer, window.pad))


def _computed_convolution(node: Node) -> Form:
    """A convolution whose kernels the network computes."""
    window = Window(node, list(node.inputs[1].shape[2:]))
    groups = node.attribute("group", 1)
    call = FUNCTIONS[node.rank() - 2]

    def compute(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        made: Tensor = call(window.pad(x), weight, bias, window.strides, 0, window.dilations, groups)
        return made

    return node.function(compute)


@form("ConvTranspose")
def transposed_convolution(node: Node) -> Form:
    """A transposed convolution."""
    weight, groups = node.wanted_constant(1), node.attribute("group", 1)
    axes = weight.ndim - 2
    window = Window(node, list(weight.shape[2:]))
    more = list(node.attribute("output_padding", [0] * axes))
    wanted = node.attribute("output_shape")
    sizes = [int(size) for size in node.inputs[0].shape[2:]]
    if wanted is not None or window.how.startswith("SAME"):
        targets = (
            list(wanted)[-axes:]
            if wanted
            else [size * stride for size, stride in zip(sizes, window.strides, strict=True)]
        )
        for axis, target in enumerate(targets):
            span = (window.kernel[axis] - 1) * window.dilations[axis] + 1
            total = (sizes[axis] - 1) * window.strides[axis] + span + more[axis] - target
            small = max(total, 0) // 2
            ends = (small, max(total, 0) - small)
            window.before[axis], window.after[axis] = ends if window.how == "SAME_UPPER" else ends[::-1]
            more[axis] += max(-total, 0)
    inner = [min(pair) for pair in zip(window.before, window.after, strict=True)]
    layer = TRANSPOSED[axes](
        weight.shape[0],
        weight.shape[1] * groups,
        tuple(window.kernel),
        tuple(window.strides),
        tuple(inner),
        tuple(more),
        groups,
        node.has(2),
        tuple(window.dilations),
    )
    layer.weight = _parameter(node, 1)
    if node.has(2):
        layer.bias = _parameter(node, 2)
    if window.before == window.after:
        return node.layer(layer)
    cut = Cut(layer, *([a - b for a, b in zip(ends, inner, strict=True)] for ends in (window.before, window.after)))
    return node.layer(cut)


class Cut(nn.Module):
    """A transposed convolution of which more is cut at one end than at the other."""

    def __init__(self, layer: nn.Module, before: list[int], after: list[int]) -> None:
        super().__init__()
        self.layer, self._before, self._after = layer, before, after

    def forward(self, x: Tensor) -> Tensor:
        """Calls the layer and cuts."""
        x = self.layer(x)
        for axis, (before, after) in enumerate(zip(self._before, self._after, strict=True), 2):
            x = x.narrow(axis, before, x.shape[axis] - before - after)
        return x


def linear(node: Node, weight: np.ndarray, change: Any, way: str, bias: nn.Parameter | None) -> Form:
    """Returns the form of a product with a matrix, given as (outputs, inputs) once `change` is done."""
    outputs, inputs = change(weight).shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None)
    layer.weight = _parameter(node, 1, way, change)
    if bias is not None:
        layer.bias = bias
    return node.layer(layer)


@form("Gemm")
def general_product(node: Node) -> Form:
    """A product with a matrix, and a bias."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    across, turned = node.attribute("transA", 0), node.attribute("transB", 0)
    weight = node.constant(1)
    bias = node.constant(2)
    outputs = None if weight is None else weight.shape[0 if turned else 1]
    plain_bias = not node.has(2) or (bias is not None and bias.size in (1, outputs) and bias.shape[-1:] != ())
    if weight is None or across or not plain_bias:

        def compute(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
            product = (a.t() if across else a) @ (b.t() if turned else b)
            product = product if alpha == 1 else product * alpha
            return product if c is None else product + (c if beta == 1 else c * beta)

        return node.function(compute)
    made = None
    if bias is not None:
        rows = weight.shape[0 if turned else 1]

        def scaled(value: np.ndarray) -> np.ndarray:
            return np.broadcast_to(value.reshape(-1) * value.dtype.type(beta), rows)

        made = _parameter(node, 2, f"{rows} times {beta}", scaled)

    def change(value: np.ndarray) -> np.ndarray:
        value = value if turned else value.T
        return value if alpha == 1 else value * value.dtype.type(alpha)

    return linear(node, weight, change, f"{'as it is' if turned else 'turned'} times {alpha}", made)


@form("MatMul")
def product(node: Node) -> Form:
    """A product of matrices; one with a constant matrix is a layer."""
    weight = node.constant(1)
    if weight is None or weight.ndim != 2 or node.rank() < 2 or weight.dtype.kind != "f":
        return node.function(torch.matmul)
    return linear(node, weight, np.transpose, "turned times 1.0", None)


@form("BatchNormalization")
def batch_norm(node: Node) -> Form:
    """Batch normalisation, as it is after training."""
    scale = node.wanted_constant(1)
    layer = NORMS[node.rank()](len(scale), node.attribute("epsilon", 1e-5), 1 - node.attribute("momentum", 0.9))
    layer.weight, layer.bias = _parameter(node, 1), _parameter(node, 2)
    layer.running_mean = torch.tensor(node.wanted_constant(3))
    layer.running_var = torch.tensor(node.wanted_constant(4))
    return node.layer(layer)


@form("InstanceNormalization")
def instance_norm(node: Node) -> Form:
    """Instance normalisation."""
    epsilon = node.attribute("epsilon", 1e-5)
    return node.function(lambda x, weight, bias: functional.instance_norm(x, weight=weight, bias=bias, eps=epsilon))


@form("LayerNormalization")
def layer_norm(node: Node) -> Form:
    """Layer normalisation over the last axes."""
    axis = node.attribute("axis", -1) % node.rank()
    scale = node.wanted_constant(1)
    layer = nn.LayerNorm(scale.shape, node.attribute("epsilon", 1e-5), bias=node.has(2))
    layer.weight = _parameter(node, 1)
    if node.has(2):
        layer.bias = _parameter(node, 2)
    if scale.ndim == node.rank() - axis:
        return node.layer(layer)
    epsilon = layer.eps

    def compute(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        normal = functional.layer_norm(x, x.shape[axis:], eps=epsilon) * weight
        return normal if bias is None else normal + bias

    return node.function(compute)


@form("GroupNormalization")
def group_norm(node: Node) -> Form:
    """Group normalisation; until opset 20 its weights are one a group."""
    groups, channels = node.attribute("num_groups"), int(node.inputs[0].shape[1])
    layer = nn.GroupNorm(groups, channels, node.attribute("epsilon", 1e-5))

    def spread(value: np.ndarray) -> np.ndarray:
        return value if len(value) == channels else np.repeat(value, channels // groups)

    layer.weight, layer.bias = (_parameter(node, position, f"{channels} channels", spread) for position in (1, 2))
    return node.layer(layer)
