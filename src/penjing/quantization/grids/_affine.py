"""Lays integers over a range of reals, as the rounding of activations needs them."""

import math
from dataclasses import dataclass

import numpy as np

from penjing.quantization.grids._integers import Grid

EVERYTHING = (-math.inf, math.inf)
SMALLEST_SCALE = 1e-10  # products of two smaller scales would leave the range in which float32 is precise


@dataclass(frozen=True)
class Affine:
    """A grid laid over a range of reals: `real = scale · (integer − zero_point)`.

    Attributes:
        grid: the integers.
        scale: distance between two neighbouring reals of the grid, a value that float32 holds exactly.
        zero_point: the integer that stands for exactly 0.
    """

    grid: Grid
    scale: float
    zero_point: int

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest real that the grid holds, in float32 arithmetic as runtimes compute it."""
        scale = np.float32(self.scale)
        return (
            float(scale * np.float32(self.grid.low - self.zero_point)),
            float(scale * np.float32(self.grid.high - self.zero_point)),
        )


def affine(low: float, high: float, grid: Grid, within: tuple[float, float] = EVERYTHING) -> Affine:
    """Lays a grid over the reals from `low` to `high`, and over 0 (Jacob et al. 2018, arXiv:1712.05877).

    Args:
        low: the smallest real to cover.
        high: the largest real to cover.
        grid: the integers.
        within: bounds (at most 0 and at least 0) that no value of the grid may pass. They are those of a clip, which the
            rounding then makes superfluous.
    """
    low, high = max(min(low, 0.0), within[0]), min(max(high, 0.0), within[1])
    if high - low < SMALLEST_SCALE * grid.steps:  # nothing but zeros was seen: any scale holds them exactly
        low, high = max(-1.0, within[0]), min(1.0, within[1])
    scale = _float32(max((high - low) / grid.steps, SMALLEST_SCALE))
    zero_point = min(max(grid.low - round(low / scale), grid.low), grid.high)
    # Rounding the zero point moved the range by up to half a step.
    if zero_point > grid.low and math.isfinite(within[0]):
        scale = min(scale, within[0] / (grid.low - zero_point))
    if zero_point < grid.high and math.isfinite(within[1]):
        scale = min(scale, within[1] / (grid.high - zero_point))
    laid = Affine(grid, _float32(max(scale, SMALLEST_SCALE)), zero_point)
    while scale > SMALLEST_SCALE and (laid.range[0] < within[0] or laid.range[1] > within[1]):
        laid = Affine(grid, float(np.nextafter(np.float32(laid.scale), np.float32(0))), zero_point)
    return laid


def _float32(value: float) -> float:
    return float(np.float32(value))
