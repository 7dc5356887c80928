"""Pooling and resizing, and the padding that windows ask for."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.importing.onnx.node import Form, Node, no_form
from penjing.importing.onnx.ops.shaping import padded
from penjing.importing.onnx.ops.table import form

MAX: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Window:
    """The window of a convolution or a pooling: its size, strides, dilations, and the padding around."""

    def __init__(self, node: Node, kernel: list[int]) -> None:
        axes = len(kernel)
        self.kernel = kernel
        self.strides = list(node.attribute("strides", [1] * axes))
        self.dilations = list(node.attribute("dilations", [1] * axes))
        self.how = node.attribute("auto_pad", "NOTSET")
        pads = list(node.attribute("pads", [0] * 2 * axes))
        if self.how == "VALID":
            pads = [0] * 2 * axes
        self.before, self.after = pads[:axes], pads[axes:]
        if self.how.startswith("SAME"):
            self.before, self.after = self._same([int(size) for size in node.inputs[0].shape[2:]])

    @property
    def is_even(self) -> bool:
        """Whether both ends of each axis get the same padding, in every call."""
        fixed = not self.how.startswith("SAME") or all(stride == 1 for stride in self.strides)
        return fixed and self.before == self.after

    def _same(self, sizes: list[Any]) -> tuple[list[Any], list[Any]]:
        totals = [
            max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            for size, stride, kernel, dilation in zip(sizes, self.strides, self.kernel, self.dilations, strict=True)
        ]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return (small, large) if self.how == "SAME_UPPER" else (large, small)

    def pad(self, x: Tensor, value: float = 0.0) -> Tensor:
        """Returns the input with its padding."""
        before, after = self.before, self.after
        if self.how.startswith("SAME") and any(stride != 1 for stride in self.strides):
            before, after = self._same(list(x.shape[2:]))
        return padded(x, before, after, value=value)


@form("MaxPool")
def max_pool(node: Node) -> Form:
    """The maximum in each window."""
    if len(node.outputs) > 1 and node.outputs[1]:
        raise no_form(node, "its second output, the places of the maxima, is used")
    window = Window(node, list(node.attribute("kernel_shape")))
    layer = MAX[len(window.kernel)](
        window.kernel,
        window.strides,
        window.before if window.is_even else 0,
        window.dilations,
        ceil_mode=bool(node.attribute("ceil_mode", 0)),
    )
    if window.is_even and all(2 * pad <= kernel for pad, kernel in zip(window.before, window.kernel, strict=True)):
        return node.function(layer, node.tensor(0))
    layer.padding = 0
    return node.function(lambda x: layer(window.pad(x, float("-inf"))), node.tensor(0))


@form("AveragePool")
def average_pool(node: Node) -> Form:
    """The mean of each window."""
    window = Window(node, list(node.attribute("kernel_shape")))
    if any(one != 1 for one in window.dilations):
        raise no_form(node, "its windows have gaps (dilations)")
    count, ceil = bool(node.attribute("count_include_pad", 0)), bool(node.attribute("ceil_mode", 0))
    padding = window.before if window.is_even else 0
    layer = MEAN[len(window.kernel)](window.kernel, window.strides, padding, ceil, count)
    if window.is_even and all(2 * pad <= kernel for pad, kernel in zip(window.before, window.kernel, strict=True)):
        return node.function(layer, node.tensor(0))
    layer.padding = (0,) * len(window.kernel)

    def compute(x: Tensor) -> Tensor:
        means = layer(window.pad(x))
        return means if count else means / layer(window.pad(torch.ones_like(x[:1, :1])))

    return node.function(compute, node.tensor(0))


@form("GlobalAveragePool")
def global_average_pool(node: Node) -> Form:
    """The mean of each channel."""
    pools: dict[int, Any] = {3: functional.adaptive_avg_pool1d, 4: functional.adaptive_avg_pool2d}
    if node.rank() in pools:
        return node.function(pools[node.rank()], node.tensor(0), 1)
    return node.function(lambda x: x.mean(list(range(2, x.ndim)), True), node.tensor(0))


@form("GlobalMaxPool")
def global_max_pool(node: Node) -> Form:
    """The maximum of each channel."""
    return node.function(lambda x: x.amax(list(range(2, x.ndim)), True), node.tensor(0))


@form("Resize", "Upsample")
def resize(node: Node) -> Form:
    """Other heights and widths, by the nearest pixel or by interpolation."""
    old = node.op == "Upsample" or node.opset < 11
    mode = node.attribute("mode", "nearest")
    how = "asymmetric" if old else node.attribute("coordinate_transformation_mode", "half_pixel")
    nearest = "floor" if old else node.attribute("nearest_mode", "round_prefer_floor")
    scales = node.setting("scales", 1 if old else 2)
    wanted = None if old else node.raw(3)
    rank = node.rank()
    axes = sorted(axis % rank for axis in node.attribute("axes", range(rank)))
    known: dict[tuple[str, str, str], tuple[str, bool | None]] = {
        ("nearest", "asymmetric", "floor"): ("nearest", None),
        ("nearest", "half_pixel", "round_prefer_floor"): ("nearest-exact", None),
        ("nearest", "half_pixel", "round_prefer_ceil"): ("nearest-exact", None),
        ("nearest", "pytorch_half_pixel", "round_prefer_floor"): ("nearest-exact", None),
    }
    interpolated = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}
    found: tuple[str, bool | None] | None = known.get((mode, how, nearest)) if mode == "nearest" else None
    if mode == "linear" and how in interpolated:
        found = ({3: "linear", 4: "bilinear", 5: "trilinear"}[rank], interpolated[how])
    if mode == "cubic" and how in interpolated and rank == 4 and node.attribute("cubic_coeff_a", -0.75) == -0.75:
        found = ("bicubic", interpolated[how])
    rest = {axis: 1.0 for axis in range(rank)} | dict(zip(axes, scales or [1.0] * len(axes), strict=True))
    plain = {"antialias": 0, "exclude_outside": 0, "keep_aspect_ratio_policy": "stretch"}
    odd = [name for name, value in plain.items() if node.attribute(name, value) != value]
    if found is None or odd or rest[0] != 1 or rest[1] != 1:
        asked = ", ".join([f"mode={mode}", f"coordinate_transformation_mode={how}", f"nearest_mode={nearest}", *odd])
        raise no_form(node, f"PyTorch doesn't resize so ({asked}; only heights and widths are resized)")
    name, corners = found

    def compute(x: Tensor, sizes: Any) -> Tensor:
        if sizes is None:
            factors = [rest[axis] for axis in range(2, rank)]
            return functional.interpolate(x, scale_factor=factors, mode=name, align_corners=corners)
        given = dict(zip(axes, sizes.reshape(-1).tolist(), strict=True))
        return functional.interpolate(
            x, [given.get(axis, x.shape[axis]) for axis in range(2, rank)], None, name, corners
        )

    return node.function(compute, node.tensor(0), None if scales else wanted)
