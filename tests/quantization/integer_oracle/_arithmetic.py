"""Integer forms of sums and products of two activations, entry by entry.

ONNX Runtime computes these in float32 from the same scales (`QLinearAdd`, `QLinearMul`), so it agrees but for results
within a few times 2^-24 of their size from the middle between two steps.
"""

from typing import Any

import torch
from torch import Tensor, fx

from integer_oracle._fixed_point import LARGEST_PRODUCT, FixedPoint, rounding_shift
from integer_oracle._lookup import looked_up
from integer_oracle._table import Call, Kernel, integer

aten = torch.ops.aten


@integer(aten.add.Tensor)
def add(call: Call, a: fx.Node, b: Any, alpha: Any) -> Kernel:
    """Both operands times their factors to the result's grid, added before the one rounding."""
    if not isinstance(b, fx.Node):
        return looked_up(call, a)
    if alpha != 1:
        raise call.error(f"adds {alpha} times its second operand")
    left, right, grid = call.codes(a), call.codes(b), call.grid
    fixed = FixedPoint.together(float(left.scale / grid.scale), float(right.scale / grid.scale))
    by_left, by_right = fixed.mantissa
    bound = left.largest * int(by_left) + right.largest * int(by_right)
    call.check(bound, LARGEST_PRODUCT)

    def run(a: Tensor, b: Tensor) -> Tensor:
        sums = (a - left.zero_point).long() * by_left + (b - right.zero_point).long() * by_right
        return (rounding_shift(sums, fixed.shift) + grid.zero_point).clamp(grid.low, grid.high).int()

    return Kernel(run, (a, b), grid)


@integer(aten.mul.Tensor)
def multiply(call: Call, a: fx.Node, b: Any) -> Kernel:
    """The product of both without their zero points, rescaled."""
    if not isinstance(b, fx.Node):
        return looked_up(call, a)
    left, right = call.codes(a), call.codes(b)
    rescale = call.rescaled(left.largest * right.largest, left.scale * right.scale / call.grid.scale)

    def run(a: Tensor, b: Tensor) -> Tensor:
        return rescale((a - left.zero_point).long() * (b - right.zero_point).long())

    return Kernel(run, (a, b), call.grid)
