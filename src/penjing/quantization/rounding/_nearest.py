"""Rounds to the nearest integer."""

import torch
from torch import Tensor

from penjing.quantization.rounding._registry import roundings


@roundings.register(source="IEEE 754-2019, roundTiesToEven")
def nearest(real: Tensor, generator: torch.Generator) -> Tensor:
    """To the nearest integer, halves to the even one: the least error of each weight, and none on average.

    Args:
        real: weights in steps.
        generator: not used.
    """
    return real.round()
