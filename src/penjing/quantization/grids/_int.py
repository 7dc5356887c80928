"""Signed integers around zero."""

import torch
from torch import Tensor

from penjing.quantization.grids._affine import SMALLEST_SCALE
from penjing.quantization.grids._integers import Grid, integers
from penjing.quantization.grids._least_error import FEW_BITS, shrink
from penjing.quantization.grids._registry import BITS, GRAINS, Laid, Rows, grids


@grids.register(
    name="intN",
    source="Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only "
    "Inference, arXiv:1712.05877",
    grains=GRAINS,
    bits=BITS,
    integer=True,
)
def signed(rows: Rows, bits: int) -> Laid:
    """Symmetric integers of 2 to 16 bits: "int8", "int4"; their zero point is 0.

    A row's scale is the smallest one that holds its largest weight. With fewer than 8 bits it is the scale with the least
    squared error instead, which clips the rarest weights (Nagel et al. 2021, arXiv:2106.08295, section 3.1).
    """
    grid = integers(f"int{bits}", symmetric=True)
    scale = symmetric(rows.values, grid, rows.least)
    zero = torch.zeros_like(scale, dtype=torch.int64)
    if bits < FEW_BITS:
        scale = shrink(rows, grid, scale, zero)
    return Laid(grid, scale, zero)


def symmetric(values: Tensor, grid: Grid, least: Tensor | None = None) -> Tensor:
    """Returns the smallest scale of each row that holds the row's largest weight.

    Args:
        values: the weights, `(rows, …)`.
        grid: symmetric integers.
        least: `(rows,)`, lower bounds of the scales; None for none.

    Returns:
        `(rows,)` float32, all above 0.
    """
    largest = values.detach().float().flatten(1).abs().amax(1)
    scales = (largest / grid.high).clamp_min(SMALLEST_SCALE)
    if least is not None:
        scales = scales.maximum(least)
    return like_neighbours(scales, largest > 0, 1.0 / grid.high)


def like_neighbours(scales: Tensor, filled: Tensor, alone: float) -> Tensor:
    """Gives rows of zeros, which any scale holds, the largest scale of the other rows.

    Biases are rounded in multiples of the scale, so such a row's bias is then rounded about as finely as others.

    Args:
        scales: `(rows,)`.
        filled: `(rows,)`, whether a row holds anything but zeros.
        alone: the scale for all rows where all of them hold zeros only.
    """
    usual = torch.where(filled.any(), scales.amax(), alone)  # no branch: shapes are propagated through it in training
    return torch.where(filled, scales, usual.maximum(scales))
