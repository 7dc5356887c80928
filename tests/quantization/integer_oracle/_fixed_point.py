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

MANTISSA_BITS = 24  # bits of a float32's mantissa
LARGEST_SHIFT = 62
SPREAD = 20  # bits by which factors of one sum may differ before the smallest is rounded more coarsely
SATURATING = 2.0**22  # any sum but 0 times this is beyond every grid
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
            factor: a number or array, for products that are clipped to grids of at most 16 bits.
        """
        fraction, exponent = np.frexp(np.minimum(np.asarray(factor, dtype=np.float64), SATURATING))
        mantissa = np.rint(fraction * 2**MANTISSA_BITS).astype(np.int64)
        shift = MANTISSA_BITS - exponent.astype(np.int64)
        mantissa = np.where(shift > LARGEST_SHIFT, 0, mantissa)  # too small for any sum to reach half a step
        return cls(torch.as_tensor(mantissa), torch.as_tensor(np.clip(shift, 1, LARGEST_SHIFT)))

    @classmethod
    def together(cls, *factors: float) -> "FixedPoint":
        """Returns the fixed-point form of factors whose products are added before they are rounded: one shift for all."""
        exponents = [int(np.frexp(np.float64(factor))[1]) for factor in factors]
        shift = MANTISSA_BITS - max(exponents) + min(max(exponents) - min(exponents), SPREAD)
        shift = min(max(shift, 1), LARGEST_SHIFT)
        mantissas = [round(float(factor) * 2.0**shift) for factor in factors]
        return cls(torch.tensor(mantissas), torch.tensor(shift))

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
