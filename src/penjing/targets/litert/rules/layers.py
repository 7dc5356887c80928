"""Convolutions, linear layers and products of matrices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from penjing.graph.ops import CONVOLUTIONS
from penjing.targets.litert._file import Grid
from penjing.targets.litert._lowering import Codes, Held, Lowering, NoRule
from penjing.targets.litert.rules._table import rule

aten = torch.ops.aten

SAME, VALID = 0, 1  # the schema's numbers
FEW_CHANNELS = 4  # of an image that a convolution reads in fewer columns: XNNPACK's kernels multiply 8 at once or more
LEAST_RATIO = 2.0**-31  # of a product's scale to that of its output: XNNPACK's kernels refuse smaller ones
LARGEST_BIAS = 2.0**30  # codes of 32 bits, with as much left for the sum of products
BIAS_SCALE = 1e-30  # the smallest scale that a float32 holds with all its digits, roughly


@dataclass(frozen=True)
class _Products:
    """The constants of a layer.

    Attributes:
        weight: real numbers, or integers with a scale per output.
        bias: real numbers, one per output.
    """

    weight: np.ndarray | Codes
    bias: np.ndarray


def _products(lowering: Lowering, node: fx.Node, weight: Any, bias: Any) -> _Products:
    if isinstance(weight, fx.Node) or isinstance(bias, fx.Node):
        raise NoRule(node, f"{node.target} with a weight that is computed at run time")
    real = weight.detach().cpu().numpy()
    stored = lowering.weight(node, 1)
    zeros = np.zeros(len(real), np.float32)
    return _Products(real if stored is None else stored, zeros if bias is None else bias.detach().cpu().numpy())


def _integer_constants(
    lowering: Lowering, products: _Products, scale: float, out: float, laid: Sequence[int]
) -> list[int]:
    """Returns the tensors of a layer's weight and bias as integers.

    A channel whose scale is too small for the kernels, as where pruning left zeros, is laid on a coarser grid.

    Args:
        lowering: writes the constants.
        products: the weight as codes.
        scale: of the layer's input.
        out: scale of its output.
        laid: the order of the weight's axes in the file; its output channels are one of them.
    """
    stored = products.weight
    assert isinstance(stored, Codes)
    least = np.maximum(out * LEAST_RATIO / scale, np.abs(products.bias) / LARGEST_BIAS / scale)
    least = np.maximum(least, BIAS_SCALE)
    scales = np.maximum(stored.scale, least)
    shape = (-1, *(1,) * (stored.codes.ndim - 1))
    ratio = (stored.scale / scales).reshape(shape)
    codes = np.round(stored.codes * ratio).astype(np.int8) if (ratio < 1).any() else stored.codes
    bias = np.round(products.bias.astype(np.float64) / (scales * scale)).astype(np.int32)
    grid = Grid(_numbers(scales), axis=list(laid).index(0))
    own = Grid(_numbers(scales * scale))
    return [
        lowering.file.constant(codes.transpose(laid), "weight", grid),
        lowering.file.constant(bias, "bias", own),
    ]


def _float_constants(lowering: Lowering, products: _Products, laid: Sequence[int]) -> list[int]:
    stored = products.weight
    if isinstance(stored, Codes):
        grid = Grid(_numbers(stored.scale), axis=list(laid).index(0))
        codes = lowering.file.constant(stored.codes.transpose(laid), "weight", grid)
        made = lowering.make(lowering.file.shape(codes), "float32")
        lowering.file.op("DEQUANTIZE", [codes], [made.index], kind="DequantizeOptions")
        weight = made.index
    else:
        weight = lowering.file.constant(stored.transpose(laid), "weight")
    return [weight, lowering.file.constant(products.bias, "bias")]


def _numbers(scales: np.ndarray) -> tuple[float, ...]:
    return tuple(float(scale) for scale in scales.astype(np.float32))


@rule(*CONVOLUTIONS)
def convolution(lowering: Lowering, node: fx.Node) -> None:
    """Writes CONV_2D or DEPTHWISE_CONV_2D; a convolution over one axis as one over two, the first of size 1."""
    x, weight, bias, stride, padding, dilation, groups = lowering.arguments(node)
    axes = weight.dim() - 2
    if axes == 3:
        raise NoRule(node)
    stride, dilation = (spread(value, axes) for value in (stride, dilation))
    padded = lowering.unpadded(x)
    amounts = [(0, 0), (0, 0), *_paddings(padding, weight.shape[2:], stride, dilation)]
    if padded.amounts[:2] != ((0, 0), (0, 0)) or any(min(pair) < 0 for pair in padded.amounts):
        source = x  # zeros in other places stay a PAD
    else:
        source = padded.source
        amounts = [(a + c, b + d) for (a, b), (c, d) in zip(amounts, padded.amounts, strict=True)]
    depthwise = groups > 1 and weight.shape[1] == 1 and groups == lowering.shape(source)[1]
    products = _products(lowering, node, weight, bias)
    laid = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    if axes == 1:
        products = _over_two_axes(products)
    held = _operand(lowering, source, products)
    rounded = lowering.rounded(node) if held.grid is not None else None
    if rounded is None and held.grid is not None:
        held = lowering.held(source)
    order = (0, *range(2, axes + 2), 1)
    sizes, kernel = lowering.shape(source)[2:], tuple(weight.shape[2:])
    held, pairs = lowering.ordered(held, order), None
    if rounded is not None and axes == 2 and weight.shape[1] <= FEW_CHANNELS and groups == 1 and dilation[1] == 1:
        pairs = _Pairs.of(lowering.shape(node)[3], sizes[1], kernel[1], stride[1], amounts[3])
    if pairs is not None:
        held, products = pairs.image(lowering, held), pairs.weight(products)
        amounts[3], sizes = pairs.amounts, (sizes[0], sizes[1] // pairs.step)
        stride, kernel = (stride[0], 1), (kernel[0], pairs.width)
    name = same_or_valid(amounts[2:], sizes, kernel, stride, dilation)
    if name is None:
        held, name = lowering.padded(held, amounts), VALID
    if axes == 1:
        batch, length, channels = lowering.file.shape(held.index)
        held = lowering.reshaped(held, (batch, 1, length, channels))
        stride, dilation = (1, *stride), (1, *dilation)
    shape = lowering.shape(node)
    shape = (shape[0], *((1,) if axes == 1 else ()), *shape[2:], shape[1])
    end, activation, made, constants = _output(lowering, node, held, rounded, products, laid, shape)
    options = {
        "padding": name, "strideH": stride[0], "strideW": stride[1], "dilationHFactor": dilation[0],
        "dilationWFactor": dilation[1], "fusedActivationFunction": activation,
    }  # fmt: skip
    inputs = [held.index, *constants]
    if depthwise:
        multiplier = weight.shape[0] // groups
        lowering.file.op(
            "DEPTHWISE_CONV_2D", inputs, [made.index], kind="DepthwiseConv2DOptions", depthMultiplier=multiplier,
            **options,
        )  # fmt: skip
    else:
        lowering.file.op("CONV_2D", inputs, [made.index], kind="Conv2DOptions", **options)
        if pairs is not None:
            lowering.file.macs[len(lowering.file.operators) - 1] = math.prod(shape) * math.prod(weight.shape[1:])
    if axes == 1:
        batch, _, length, channels = shape
        made = lowering.reshaped(made, (batch, length, channels), order)
    else:
        made = Held(made.index, order, made.grid)
    (lowering.give if made.grid is None else lowering.give_rounded)(end, made)


@dataclass(frozen=True)
class _Pairs:
    """An image with few channels, read as one with half as many columns, each of two columns' channels.

    A convolution with stride 2 over 3 channels then has a kernel that is two columns wide instead of three. Kernels for
    integers work on 8 or 64 channels at once, however few there are, so that fewer taps take less time; and to read the image
    so takes none, since the bytes stay where they are. All this holds for other strides, too.

    Attributes:
        step: columns that become one: as many as the stride.
        before: columns of zeros in front of the image as it was.
        first: the column that the first tap reads, counted from an output's own.
        width: width of the kernel.
        amounts: columns of zeros in front of the image and behind it.
    """

    step: int
    before: int
    first: int
    width: int
    amounts: tuple[int, int]

    @classmethod
    def of(cls, out: int, size: int, width: int, step: int, amounts: tuple[int, int]) -> "_Pairs | None":
        """Returns how a convolution reads fewer columns; None where that isn't possible, or saves no taps.

        Args:
            out: columns of the output.
            size: columns of the image.
            width: of the kernel.
            step: the stride across.
            amounts: columns of zeros in front of the image and behind it.
        """
        before = amounts[0]
        first, last = -before // step, (width - 1 - before) // step
        wide = last - first + 1
        behind = out - size // step + wide - 1 + first
        if step == 1 or size % step or wide >= width or behind < 0:
            return None
        return cls(step, before, first, wide, (-first, behind))

    def image(self, lowering: Lowering, held: Held) -> Held:
        """Writes the image, whose axes are in the order `(N, H, W, C)`, with fewer columns."""
        batch, height, width, channels = lowering.file.shape(held.index)
        return lowering.reshaped(held, (batch, height, width // self.step, self.step * channels), held.order)

    def weight(self, products: _Products) -> _Products:
        """Returns the constants of the convolution over fewer columns, with zeros where they have more than the kernel."""
        stored = products.weight
        assert isinstance(stored, Codes)
        outs, channels, height, width = stored.codes.shape
        made = np.zeros((outs, self.step, channels, height, self.width), np.int8)
        for tap in range(width):
            column, inner = divmod(tap - self.before, self.step)
            made[:, inner, :, :, column - self.first] = stored.codes[:, :, :, tap]
        return _Products(Codes(made.reshape(outs, -1, height, self.width), stored.scale), products.bias)


def _operand(lowering: Lowering, x: fx.Node, products: _Products) -> Held:
    """Returns a layer's input, as integers where it can multiply them."""
    integers = lowering.integers(x) if isinstance(products.weight, Codes) else None
    return integers or lowering.held(x)


def _output(
    lowering: Lowering,
    node: fx.Node,
    held: Held,
    rounded: tuple[fx.Node, Grid] | None,
    products: _Products,
    laid: Sequence[int],
    shape: Sequence[int],
) -> tuple[fx.Node, int, Held, list[int]]:
    """Returns the node up to which a layer computes, its activation, its output, and its constants."""
    if rounded is not None and held.grid is not None:
        end, grid = rounded
        assert isinstance(held.grid.scale, float) and isinstance(grid.scale, float)
        constants = _integer_constants(lowering, products, held.grid.scale, grid.scale, laid)
        return end, 0, lowering.make(shape, "int8", grid=grid), constants
    end, activation = lowering.clipped(node)
    return end, activation, lowering.make(shape, "float32"), _float_constants(lowering, products, laid)


def _over_two_axes(products: _Products) -> _Products:
    stored = products.weight
    if isinstance(stored, Codes):
        return _Products(Codes(stored.codes[:, :, None], stored.scale), products.bias)
    return _Products(stored[:, :, None], products.bias)


def spread(value: Any, axes: int) -> tuple[int, ...]:
    """Returns a number for each axis, where the op was given one for all or one each."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * axes if len(values) == 1 else values


def _paddings(
    padding: Any, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """Returns the zeros in front of and behind each axis of an image."""
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        totals = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(amount, amount) for amount in spread(padding, len(kernel))]


def same_or_valid(
    amounts: Sequence[tuple[int, int]],
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> int | None:
    """Returns the name in the schema of the zeros around an image; None where they have none."""
    same = []
    for size, width, step, apart in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((-(-size // step) - 1) * step + apart * (width - 1) + 1 - size, 0)
        same.append((total // 2, total - total // 2))
    if list(amounts) == same:
        return SAME
    return None if any(map(any, amounts)) else VALID


@rule(aten.linear.default)
def linear(lowering: Lowering, node: fx.Node) -> None:
    """Writes FULLY_CONNECTED."""
    x, weight, bias = lowering.arguments(node)
    if isinstance(weight, fx.Node) or isinstance(bias, fx.Node):
        lowering.expand(node, _linear)
        return
    fully_connected(lowering, node, x, _products(lowering, node, weight, bias))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = torch.matmul(x, weight.mT)
    return product if bias is None else product + bias


def fully_connected(lowering: Lowering, node: fx.Node, x: fx.Node, products: _Products) -> None:
    """Writes FULLY_CONNECTED for a layer's constants."""
    held = _operand(lowering, x, products)
    rounded = lowering.rounded(node) if held.grid is not None else None
    if rounded is None and held.grid is not None:
        held = lowering.held(x)
    last = len(held.order) - 1
    order = (*(axis for axis in held.order if axis != last), last)
    held = lowering.ordered(held, order)
    shape = lowering.shape(node)
    laid = (0, 1)
    end, activation, made, constants = _output(
        lowering, node, held, rounded, products, laid, [shape[axis] for axis in order]
    )
    lowering.file.op(
        "FULLY_CONNECTED", [held.index, *constants], [made.index], kind="FullyConnectedOptions",
        fusedActivationFunction=activation, keepNumDims=len(order) > 1,
    )  # fmt: skip
    made = Held(made.index, order, made.grid)
    (lowering.give if made.grid is None else lowering.give_rounded)(end, made)


@rule(aten.addmm.default)
def addmm(lowering: Lowering, node: fx.Node) -> None:
    """Writes FULLY_CONNECTED for a product with a constant and a bias per column."""
    bias, x, weight, beta, alpha = lowering.arguments(node)
    if isinstance(weight, fx.Node) or isinstance(bias, fx.Node) or bias.dim() != 1 or (beta, alpha) != (1, 1):
        lowering.expand(node, lambda bias, x, weight, beta=1, alpha=1: beta * bias + alpha * torch.matmul(x, weight))
        return
    products = _Products(weight.mT.detach().cpu().numpy(), bias.expand(weight.shape[1]).detach().cpu().numpy())
    fully_connected(lowering, node, x, products)


@rule(aten.matmul.default, aten.mm.default, aten.bmm.default)
def matmul(lowering: Lowering, node: fx.Node) -> None:
    """Writes FULLY_CONNECTED for a product with a constant matrix, else BATCH_MATMUL."""
    left, right = lowering.arguments(node)
    if isinstance(left, fx.Node) and isinstance(right, Tensor) and right.dim() == 2 and len(lowering.shape(left)) > 1:
        weight = right.mT.detach().cpu().numpy()
        fully_connected(lowering, node, left, _Products(weight, np.zeros(len(weight), np.float32)))
        return
    if min(len(lowering.shape(left)), len(lowering.shape(right))) < 2:
        lowering.expand(node, _with_vectors)
        return
    first, second = (lowering.held(one) if isinstance(one, fx.Node) else lowering.fixed(one) for one in (left, right))
    first = lowering.plain(first)
    rank = len(second.order)
    turned = second.order == (*range(rank - 2), rank - 1, rank - 2)
    second = second if turned else lowering.plain(second)
    made = lowering.like(node)
    lowering.file.op("BATCH_MATMUL", [first.index, second.index], [made.index], kind="BatchMatMulOptions", adjY=turned)
    lowering.give(node, made)


def _with_vectors(left: Tensor, right: Tensor) -> Tensor:
    """Multiplies with vectors as with matrices that have one row or column."""
    wide = torch.matmul(
        left.unsqueeze(0) if left.dim() == 1 else left, right.unsqueeze(1) if right.dim() == 1 else right
    )
    if right.dim() == 1:
        wide = wide.squeeze(-1)
    return wide.squeeze(-1 if right.dim() == 1 else -2) if left.dim() == 1 else wide


@rule(aten.conv_transpose2d.input, aten.conv_transpose1d.default)
def transposed_convolution(lowering: Lowering, node: fx.Node) -> None:
    """Writes TRANSPOSE_CONV without padding, and cuts off what the padding would have."""
    x, weight, bias, stride, padding, _, groups, dilation = lowering.arguments(node)
    axes = weight.dim() - 2
    stride, padding, dilation = (spread(value, axes) for value in (stride, padding, dilation))
    if groups != 1 or any(step != 1 for step in dilation) or axes != 2 or isinstance(weight, fx.Node):
        raise NoRule(node, f"{node.target} in groups, with a dilation, over one axis, or with a computed weight")
    batch, channels, *sizes = lowering.shape(node)
    given = lowering.shape(x)[2:]
    full = [(size - 1) * step + width for size, step, width in zip(given, stride, weight.shape[2:], strict=True)]
    if any(pad + size > one for pad, size, one in zip(padding, sizes, full, strict=True)):
        raise NoRule(node, f"{node.target} with more output padding than padding")
    held = lowering.ordered(lowering.held(x), (0, 2, 3, 1))
    shape = (batch, *full, channels)
    made = lowering.make(shape, "float32", (0, 2, 3, 1))
    real = weight.detach().cpu().numpy().transpose(1, 2, 3, 0)
    zeros = np.zeros(channels, np.float32) if bias is None else bias.detach().cpu().numpy()
    constants = [np.array(shape, np.int32), real, zeros]
    out, kernel, summand = (
        lowering.file.constant(array, name) for array, name in zip(constants, ("shape", "weight", "bias"), strict=True)
    )
    lowering.file.op(
        "TRANSPOSE_CONV", [out, kernel, held.index, summand], [made.index], kind="TransposeConvOptions", padding=VALID,
        strideH=stride[0], strideW=stride[1],
    )  # fmt: skip
    if full != sizes:
        begin, size = (0, *padding, 0), (batch, *sizes, channels)
        cut = lowering.make(size, "float32", (0, 2, 3, 1))
        ends = [lowering.file.constant(np.array(one, np.int32), "slice") for one in (begin, size)]
        lowering.file.op("SLICE", [made.index, *ends], [cut.index], kind="SliceOptions")
        made = cut
    lowering.give(node, made)
