"""Rounds up or down at random."""

import torch
from torch import Tensor

from penjing.quantization.rounding._registry import roundings


@roundings.register(
    source="Gupta et al. 2015, Deep Learning with Limited Numerical Precision, arXiv:1502.02551",
)
def stochastic(real: Tensor, generator: torch.Generator) -> Tensor:
    """Rounds up with the fraction as the probability: each weight is right on average, with more noise than `nearest`.

    Args:
        real: weights in steps of the grid.
        generator: draws the random numbers.
    """
    chance = torch.rand(real.shape, generator=generator, dtype=real.dtype).to(real.device)
    below = real.floor()
    return below + (chance < real - below)  # integers stay as they are
