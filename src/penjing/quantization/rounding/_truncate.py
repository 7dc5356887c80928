"""Rounds towards zero."""

import torch
from torch import Tensor

from penjing.quantization.rounding._registry import roundings

# Relative to the weight. Scales are float32, so a weight of a whole number of steps may come out a little below that number.
SLACK = 1e-6


@roundings.register(
    source="Oppenheim and Schafer, Discrete-Time Signal Processing: truncation of sign-magnitude numbers"
)
def truncate(real: Tensor, generator: torch.Generator) -> Tensor:
    """Cuts the fraction off, q = sign(f)·⌊|f|/Δ⌋, as the plainest hardware does.

    This rounding is biased: magnitudes shrink by half a step on average, where `nearest` is right on average, and the mean
    squared error is Δ²/3 instead of Δ²/12, four times as large. With one scale and many weights of one sign the errors add
    up in a layer's sums instead of cancelling.

    Args:
        real: weights in steps of the grid.
        generator: not used.
    """
    return real.sign() * (real.abs() * (1 + SLACK)).floor()
