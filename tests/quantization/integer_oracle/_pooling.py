"""Integer forms of pooling over windows and over axes.

The largest code is the code of the largest: exact. Averages are sums times a fixed-point factor that holds the count; ONNX
Runtime's `QLinearGlobalAveragePool` sums integers, too, its `QLinearAveragePool` sums in float32: within one step.
"""

import math
from typing import Any

import torch
from torch import Tensor, fx

from integer_oracle._table import Call, Codes, Kernel, integer
from integer_oracle._windows import Windows, per_axis

aten = torch.ops.aten


@integer(aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default)
def max_pool(call: Call, x: fx.Node, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Kernel:
    """The largest code of each window; the grid stays."""
    codes = call.codes(x)
    windows = _windows(x, kernel, stride, padding, dilation, ceil_mode)

    def run(x: Tensor) -> Tensor:
        slices = [seen for _, seen in windows.over(x, codes.low)]
        largest = slices[0]
        for seen in slices[1:]:
            largest = largest.maximum(seen)
        return largest

    return Kernel(run, (x,), codes)


@integer(aten.avg_pool1d.default)
def avg_pool1d(
    call: Call, x: fx.Node, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool
) -> Kernel:
    """As `avg_pool`."""
    return avg_pool(call, x, kernel, stride, padding, ceil_mode, count_include_pad, None)


@integer(aten.avg_pool2d.default, aten.avg_pool3d.default)
def avg_pool(
    call: Call,
    x: fx.Node,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: Any,
) -> Kernel:
    """The sum of each window; the factor depends on how many entries it averages."""
    codes = call.codes(x)
    windows = _windows(x, kernel, stride, padding, 1, ceil_mode)
    if divisor is None and not count_include_pad and any(max(pair) for pair in windows.padding):
        raise call.error("averages over other numbers of entries at the border (count_include_pad=False)")
    if divisor is None and ceil_mode and _hang_over(x, windows):
        raise call.error("averages over other numbers of entries at the border (ceil_mode=True)")
    return _averaged(call, x, codes, windows, divisor or math.prod(windows.kernel))


def _hang_over(x: fx.Node, windows: Windows) -> bool:
    sizes = x.meta["val"].shape[2:]
    plain = Windows(windows.kernel, windows.stride, windows.padding, windows.dilation)
    return windows.count(sizes) != plain.count(sizes)


@integer(aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool1d.default)
def adaptive_avg_pool(call: Call, x: fx.Node, out: Any) -> Kernel:
    """Where the windows are all alike."""
    codes, sizes = call.codes(x), x.meta["val"].shape[2:]
    wanted = [size if given is None else given for size, given in zip(sizes, per_axis(out, len(sizes)), strict=True)]
    if any(not isinstance(size, int) or size % count for size, count in zip(sizes, wanted, strict=True)):
        raise call.error(f"divides {tuple(sizes)} into {tuple(wanted)} windows of different sizes")
    kernel = tuple(size // count for size, count in zip(sizes, wanted, strict=True))
    windows = Windows(kernel, kernel, ((0, 0),) * len(kernel), (1,) * len(kernel))
    return _averaged(call, x, codes, windows, math.prod(kernel))


@integer(aten.mean.dim)
def mean(call: Call, x: fx.Node, axes: Any, keep: bool, dtype: Any) -> Kernel:
    """The sum over axes of known sizes."""
    codes, shape = call.codes(x), x.meta["val"].shape
    sizes = [shape[axis] for axis in (range(len(shape)) if axes is None else axes)]
    if not all(isinstance(size, int) for size in sizes):
        raise call.error("averages over an axis of free size")
    count = math.prod(sizes)
    rescale = call.rescaled(codes.largest * count, _factor(call, codes, count))
    dims = tuple(range(len(shape))) if axes is None else tuple(axes)
    return Kernel(lambda x: rescale((x - codes.zero_point).long().sum(dims, keepdim=keep)), (x,), call.grid)


def _averaged(call: Call, x: fx.Node, codes: Codes, windows: Windows, count: int) -> Kernel:
    rescale = call.rescaled(codes.largest * math.prod(windows.kernel), _factor(call, codes, count))

    def run(x: Tensor) -> Tensor:
        sums = torch.zeros((), dtype=torch.int64)
        for _, seen in windows.over((x - codes.zero_point).long(), 0):
            sums = sums + seen
        return rescale(sums)

    return Kernel(run, (x,), call.grid)


def _factor(call: Call, codes: Codes, count: int) -> Any:
    return codes.scale / (call.grid.scale * call.grid.scale.dtype.type(count))


def _windows(x: fx.Node, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Windows:
    axes = x.meta["val"].dim() - 2
    sizes = per_axis(kernel, axes)
    pads = tuple((pad, pad) for pad in per_axis(padding, axes))
    return Windows(sizes, per_axis(stride, axes) if stride else sizes, pads, per_axis(dilation, axes), ceil_mode)
