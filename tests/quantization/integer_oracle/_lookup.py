"""Integer forms of functions of one number: a table with an entry for every code, 256 of them at 8 bits.

ONNX Runtime's kernels for these look codes up, too; entries agree where it computes the function as PyTorch does, and
else within one step (its sigmoid is an approximation, and hardsigmoid is lowered as a sum).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from integer_oracle._table import Call, Codes, Kernel, integer
from penjing.graph.ops import node_arguments

aten = torch.ops.aten


@integer(
    aten.sigmoid.default,
    aten.hardsigmoid.default,
    aten.tanh.default,
    aten.silu.default,
    aten.hardswish.default,
    aten.gelu.default,
    aten.mish.default,
    aten.elu.default,
    aten.leaky_relu.default,
    aten.softplus.default,
    aten.exp.default,
    aten.neg.default,
    aten.abs.default,
    aten.pow.Tensor_Scalar,
    aten.div.Tensor,
    aten.sub.Tensor,
    aten.relu.default,
    aten.relu6.default,
    aten.hardtanh.default,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
)
def unary(call: Call, x: fx.Node, *_: Any) -> Kernel:
    """Looks each code up."""
    return looked_up(call, x)


def looked_up(call: Call, x: fx.Node) -> Kernel:
    """Returns the kernel of a function of `x` whose other arguments are plain numbers."""
    arguments = node_arguments(call.node)
    if arguments[0] is not x or any(isinstance(argument, fx.Node) for argument in arguments[1:]):
        raise call.error("has two operands and no integer form")
    codes = call.codes(x)

    def function(reals: Tensor) -> Tensor:
        result: Tensor = call.node.target(reals, *call.node.args[1:], **call.node.kwargs)  # type: ignore[operator]
        return result

    table = tabulated(function, codes, call.grid)
    return Kernel(lambda x: table[(x - codes.low).long()], (x,), call.grid)


def tabulated(function: Any, codes: Codes, grid: Codes) -> Tensor:
    """Returns the code on `grid` of the function of each code, int32, the lowest code's first."""
    reals = codes.restored(torch.arange(codes.low, codes.high + 1))
    return torch.from_numpy(grid.rounded(function(reals).numpy()).astype(np.int32))


def regridded(codes: Codes, grid: Codes) -> Any:
    """Returns a function from integers on one grid to those on another; integers on the same grid stay."""
    if codes.same_grid(grid) and grid.low <= codes.low and codes.high <= grid.high:
        return lambda x: x
    table = tabulated(lambda reals: reals, codes, grid)
    return lambda x: table[(x - codes.low).long()]
