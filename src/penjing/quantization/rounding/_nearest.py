"""Rounds to the nearest integer."""

import torch
from torch import Tensor

from penjing.quantization.rounding._registry import roundings


@roundings.register(source="IEEE 754-2019, roundTiesToEven")
def nearest(real: Tensor, generator: torch.Generator) -> Tensor:
    """Rounds to the nearest integer, halves to the even one: the error of each weight is least, and zero on average.

    Args:
        real: weights in steps of the grid.
        generator: not used.
    """
    return real.round()
