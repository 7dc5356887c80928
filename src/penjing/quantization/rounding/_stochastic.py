"""Rounds up or down by chance."""

import torch
from torch import Tensor

from penjing.quantization.rounding._registry import roundings


@roundings.register(
    source="Gupta et al. 2015, Deep Learning with Limited Numerical Precision, arXiv:1502.02551",
)
def stochastic(real: Tensor, generator: torch.Generator) -> Tensor:
    """Up with a probability that is the fraction: right on average for each single weight, with more noise than `nearest`.

    Args:
        real: weights in steps.
        generator: draws the random numbers.
    """
    chance = torch.rand(real.shape, generator=generator, dtype=real.dtype).to(real.device)
    below = real.floor()
    return below + (chance < real - below)  # integers stay as they are
