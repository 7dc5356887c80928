"""Integer forms of convolutions, linear layers and products of two activations.

Sums of products are int32, or int64 where their bound needs it: the largest distance of a code from its zero point, times
the sum of the sizes of a channel's weights, plus its bias; no input passes that. Against ONNX Runtime the sums are the same
bit for bit; what is left is the factor behind them, see `FixedPoint`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from integer_oracle._table import Call, Codes, Kernel, integer
from integer_oracle._windows import Windows, per_axis
from penjing.graph.ops import CONVOLUTIONS

aten = torch.ops.aten
Finish = Callable[[Tensor], Tensor]


@integer(*CONVOLUTIONS)
def convolution(
    call: Call, x: fx.Node, weight: fx.Node, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Kernel:
    """One matrix product per group and position of the kernel; what is padded stands for real zeros."""
    filters = call.weight_of(weight).values
    windows = _windows(tuple(filters.shape[2:]), stride, padding, dilation)
    start, finish, codes = _ends(call, x, weight, bias, axis=1, dim=filters.dim())
    filters = start(filters.reshape(groups, -1, *filters.shape[1:]))  # (groups, out, in, kernel…)
    zero_point = call.codes(x).zero_point

    def run(x: Tensor) -> Tensor:
        sizes = windows.count(x.shape[2:])
        sums = torch.zeros((), dtype=filters.dtype)
        for position, seen in windows.over(start(x - zero_point), 0):
            seen = seen.reshape(len(x), groups, -1, math.prod(sizes))
            sums = sums + _product(filters[(..., *position)], seen)
        return finish(sums.reshape(len(x), -1, *sizes))

    return Kernel(run, (x,), codes)


@integer(aten.linear.default)
def linear(call: Call, x: fx.Node, weight: fx.Node, bias: Any) -> Kernel:
    """`x · Wᵀ + b` over the last axis. Where nothing rounds the result, it is the sums themselves."""
    matrix = call.weight_of(weight).values
    start, finish, codes = _ends(call, x, weight, bias, axis=-1, dim=x.meta["val"].dim())
    matrix = start(matrix).t()
    zero_point = call.codes(x).zero_point
    return Kernel(lambda x: finish(start(x - zero_point) @ matrix), (x,), codes)


@integer(aten.matmul.default, aten.bmm.default)
def product(call: Call, a: fx.Node, b: fx.Node) -> Kernel:
    """A product of two activations, each without its zero point."""
    left, right = call.codes(a), call.codes(b)
    terms = a.meta["val"].shape[-1]
    if not isinstance(terms, int):
        raise call.error("adds up a free number of products, whose sum has no bound")
    bound = left.largest * right.largest * terms
    dtype = call.accumulator(bound)
    rescale = call.rescaled(bound, left.scale * right.scale / call.grid.scale)

    def run(a: Tensor, b: Tensor) -> Tensor:
        return rescale((a - left.zero_point).to(dtype) @ (b - right.zero_point).to(dtype))

    return Kernel(run, (a, b), call.grid)


def _windows(kernel: tuple[int, ...], stride: Any, padding: Any, dilation: Any) -> Windows:
    axes = len(kernel)
    dilation = per_axis(dilation, axes)
    if padding == "valid":
        padding = 0
    if padding == "same":
        reach = [apart * (size - 1) for apart, size in zip(dilation, kernel, strict=True)]
        pads = tuple((total // 2, total - total // 2) for total in reach)
    else:
        pads = tuple((size, size) for size in per_axis(padding, axes))
    return Windows(kernel, per_axis(stride, axes), pads, dilation)


def _product(filters: Tensor, seen: Tensor) -> Tensor:
    """(groups, out, in) · (N, groups, in, places) = (N, groups, out, places)."""
    if filters.shape[-1] == 1:  # depthwise: a product of numbers, not of matrices
        return filters * seen
    return filters @ seen


def _ends(
    call: Call, x: fx.Node, weight: fx.Node, bias: Any, axis: int, dim: int
) -> tuple[Callable[[Tensor], Tensor], Finish, Codes]:
    """Returns what a layer does before and behind its products, and what its result stands for.

    Before: casts to the accumulator's type. Behind: adds the bias, an int32 multiple of the sums' scale, and rescales.
    """
    given, layer = call.codes(x), call.weight_of(weight)
    scales = given.scale * layer.scales  # float32, as ONNX Runtime multiplies them
    added = _bias(call, bias, scales)
    sizes = layer.values.abs().flatten(1).sum(1) * given.largest + added.abs()
    bound = int(sizes.max())
    dtype = call.accumulator(bound)
    shape = [1] * dim
    shape[axis] = -1
    added = added.to(dtype).reshape(shape)

    def start(values: Tensor) -> Tensor:
        return values.to(dtype)

    if call.out is None and axis == -1:
        return start, lambda sums: sums + added, Codes(scales, 0, -bound, bound)
    rescale = call.rescaled(bound, (scales / call.grid.scale).reshape(shape))
    return start, lambda sums: rescale(sums + added), call.grid


def _bias(call: Call, bias: Any, scales: np.ndarray) -> Tensor:
    """Returns the bias as integers of the sums' scale: divided in float32, halves to even, as ONNX Runtime makes them."""
    if bias is None:
        return torch.zeros(len(scales), dtype=torch.int64)
    steps = np.rint(call.constant_of(bias).numpy().astype(np.float32) / scales)
    if np.abs(steps).max(initial=0) >= 2**31:
        raise call.error("has a bias that int32 multiples of its sums' scale can't hold")
    return torch.from_numpy(steps.astype(np.int64))
