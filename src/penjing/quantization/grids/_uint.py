"""Integers over each row's own range, with a zero point."""

import torch
from torch import Tensor

from penjing.quantization.grids._affine import SMALLEST_SCALE
from penjing.quantization.grids._int import like_neighbours
from penjing.quantization.grids._integers import Grid, integers
from penjing.quantization.grids._least_error import FEW_BITS, shrink
from penjing.quantization.grids._registry import BITS, GRAINS, Laid, Rows, grids


@grids.register(
    name="uintN",
    source="Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only "
    "Inference, arXiv:1712.05877",
    grains=GRAINS,
    bits=BITS,
    integer=True,
)
def unsigned(rows: Rows, bits: int) -> Laid:
    """Affine integers of 2 to 16 bits: "uint8", "uint4"; they cover a row's smallest to its largest weight, and 0.

    With fewer than 8 bits both ends shrink together until the squared error is least. Integers of more than 8 bits are
    stored as signed ones, shifted down by half of their range, since PyTorch can't compute with wide unsigned integers.
    """
    grid = integers(f"uint{bits}")
    if bits > 8:
        half = 2 ** (bits - 1)
        grid = Grid(grid.name, torch.int16, -half, half - 1)
    low, high = rows.values.amin(1).clamp_max(0), rows.values.amax(1).clamp_min(0)
    scale = ((high - low) / grid.steps).clamp_min(SMALLEST_SCALE)
    if rows.least is not None:
        scale = scale.maximum(rows.least)
    scale = like_neighbours(scale, high > low, 1.0 / grid.steps)
    zero = _zero_point(low, scale, grid)
    if bits < FEW_BITS:
        scale = shrink(rows, grid, scale, zero)
    return Laid(grid, scale, zero)


def _zero_point(low: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    return (grid.low - (low / scale).round()).clamp(grid.low, grid.high).to(torch.int64)
