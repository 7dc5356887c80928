"""Symmetric integers with scales that are powers of two."""

import torch

from penjing.quantization.grids._int import symmetric
from penjing.quantization.grids._integers import LARGEST_BITS, SMALLEST_BITS, integers
from penjing.quantization.grids._least_error import squared_error
from penjing.quantization.grids._registry import GRAINS, GridNumber, Laid, Rows, grids

FINER = 3  # smaller powers that are tried; a scale an eighth as large clips most weights, at any number of bits


@grids.register(
    source="Jain et al. 2020, Trained Quantization Thresholds for Accurate and Efficient Fixed-Point Inference of Deep "
    "Neural Networks, arXiv:1903.08066",
    grains=GRAINS,
    bits=GridNumber(SMALLEST_BITS, LARGEST_BITS, usual=8),
    integer=True,
)
def power_of_two(rows: Rows, bits: int) -> Laid:
    """Symmetric integers whose scales are powers of two, so that rescaling is a shift: "power_of_two:8".

    The scale is the power with the least squared error among the smallest one that holds a row's largest weight and the three
    powers below. (The paper learns the threshold and takes the power above it.)
    """
    grid = integers(f"int{bits}", symmetric=True)
    mantissa, exponent = torch.frexp(symmetric(rows.values, grid, rows.least))
    scale = torch.ldexp(torch.ones_like(mantissa), torch.where(mantissa == 0.5, exponent - 1, exponent))
    zero = torch.zeros_like(scale, dtype=torch.int64)
    best, error = scale, squared_error(rows.values, grid, scale, zero)
    for power in range(1, FINER + 1):
        tried = scale * 2.0**-power
        now = squared_error(rows.values, grid, tried, zero)
        allowed = now < error if rows.least is None else (now < error) & (tried >= rows.least)
        best, error = torch.where(allowed, tried, best), torch.where(allowed, now, error)
    return Laid(grid, best, zero)
