"""The integers that reals are rounded to: signed and unsigned ones of 2 to 16 bits."""

import re
from dataclasses import dataclass

import torch

from penjing.errors import PenjingError, unknown_name

SMALLEST_BITS, LARGEST_BITS = 2, 16


@dataclass(frozen=True)
class Grid:
    """The integers of one type.

    Attributes:
        name: the name that users type.
        dtype: the type in which the integers are stored.
        low: the smallest integer.
        high: the largest integer.
    """

    name: str
    dtype: torch.dtype
    low: int
    high: int

    @property
    def steps(self) -> int:
        """Number of steps between the smallest and the largest integer."""
        return self.high - self.low

    @property
    def bits(self) -> int:
        """Number of bits that tell the integers apart."""
        return self.steps.bit_length()


def integers(name: str, symmetric: bool = False) -> Grid:
    """Returns the integers that a name such as "int4" or "uint16" stands for.

    Args:
        name: "intN" or "uintN", N from 2 to 16.
        symmetric: leave out the smallest signed integer, so that each integer has its negative and the product of two 8-bit
            integers keeps a spare bit.

    Raises:
        PenjingError: the name has another form, or N is out of range.
    """
    found = re.fullmatch(r"(u?)int(\d+)", name) if isinstance(name, str) else None
    if found is None:
        raise unknown_name("grid", str(name), INTEGERS)
    unsigned, bits = bool(found[1]), int(found[2])
    if not SMALLEST_BITS <= bits <= LARGEST_BITS:
        raise PenjingError(f"The grid '{name}' has {bits} bits; integers have {SMALLEST_BITS} to {LARGEST_BITS}.")
    if unsigned:
        return Grid(name, torch.uint8 if bits <= 8 else torch.uint16, 0, 2**bits - 1)
    high = 2 ** (bits - 1) - 1
    return Grid(name, torch.int8 if bits <= 8 else torch.int16, -high if symmetric else -high - 1, high)


INTEGERS = tuple(f"{kind}{bits}" for bits in range(SMALLEST_BITS, LARGEST_BITS + 1) for kind in ("int", "uint"))
ACTIVATION_GRIDS = {name: integers(name) for name in INTEGERS}
