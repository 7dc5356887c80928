"""Multiplying integers by a real factor with integers alone: a mantissa, a shift, and one rounding.

After Jacob et al. 2018 ("Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
arXiv:1712.05877, section 2.2): a factor is `mantissa · 2^(−shift)`. Two things differ from gemmlowp, which they describe:

- The product is rounded once, to the nearest integer and to the even one of two that are as near. gemmlowp rounds twice
  (the high half of the doubled product, then the shift), each time away from zero; that can be off by one step.
- Factors are float32 numbers, as runtimes compute them, so 24 bits of the mantissa hold them exactly, where gemmlowp
  fills 31. The int32 mantissa leaves 39 bits for what is multiplied, and their product is exact in 64.

ONNX Runtime multiplies the sum by the same factor in float32 and rounds the product to even. That product has been
rounded to 24 bits before, so the two differ, by one step, where the exact product lies within 2^-24 of its size from the
middle between two integers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

MANTISSA_BITS = 24  # of a float32
LARGEST_SHIFT = 62
LARGEST_PRODUCT = 2**63 - 1


@dataclass(frozen=True)
class FixedPoint:
    """Real factors as integers: `mantissa · 2^(−shift)`.

    Attributes:
        mantissa: int64 tensor of numbers that fit into int32, shaped to broadcast against what is multiplied.
        shift: int64 tensor of the same shape, 1 to 62.
    """

    mantissa: Tensor
    shift: Tensor

    @classmethod
    def of(cls, factor: Any) -> "FixedPoint":
        """Returns the fixed-point form of factors above 0: exact for float32, else rounded to 24 bits.

        Args:
            factor: a number or array.
        """
        fraction, exponent = np.frexp(np.asarray(factor, dtype=np.float64))
        mantissa = np.rint(fraction * 2**MANTISSA_BITS).astype(np.int64)
        shift = MANTISSA_BITS - exponent.astype(np.int64)
        mantissa = np.where(shift > LARGEST_SHIFT, 0, mantissa)  # too small for any sum to reach half a step
        mantissa = mantissa << np.maximum(1 - shift, 0)  # too large for any sum but 0 to stay on a grid
        return cls(torch.from_numpy(np.asarray(mantissa)), torch.from_numpy(np.clip(shift, 1, LARGEST_SHIFT)))

    def largest_factor(self) -> int:
        """Returns the largest mantissa: what is multiplied may reach 2^63 divided by it."""
        return int(self.mantissa.abs().max())

    def multiply(self, values: Tensor) -> Tensor:
        """Returns the integers nearest to `values` times the factors, int64, halves to even.

        Args:
            values: integers, no larger than 2^63 divided by `largest_factor()`.
        """
        return rounding_shift(values.long() * self.mantissa, self.shift)


def rounding_shift(values: Tensor, shift: Tensor) -> Tensor:
    """Returns `values / 2^shift` rounded to the nearest integer, halves to the even one; int64."""
    floor = values >> shift
    rest = values - (floor << shift)
    half = torch.ones_like(shift) << (shift - 1)
    up = (rest > half) | ((rest == half) & (floor & 1).bool())
    return floor + up.long()
