"""Searches for the scale that rounds a row of weights with the least squared error."""

import torch
from torch import Tensor

from penjing.quantization.grids._integers import Grid
from penjing.quantization.grids._registry import Rows

FEW_BITS = 8  # bits; from this number on, clipping weights costs about as much as it gains, so no weight is clipped
CANDIDATES = 100  # scales that are tried per row


def shrink(rows: Rows, grid: Grid, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Returns the scale with the least squared error among 100 equal fractions of each row's scale; of equal ones, the largest.

    Args:
        rows: the weights that are rounded.
        grid: the integers.
        scale: `(rows,)`, scales with which no weight is clipped.
        zero_point: `(rows,)`; it stays, so both ends of the range shrink alike.
    """
    best, error = scale, squared_error(rows.values, grid, scale, zero_point)
    for step in range(CANDIDATES - 1, 0, -1):
        tried = scale * (step / CANDIDATES)
        if rows.least is not None:
            tried = tried.maximum(rows.least)
        now = squared_error(rows.values, grid, tried, zero_point)
        best, error = torch.where(now < error, tried, best), now.minimum(error)
    return best


def squared_error(values: Tensor, grid: Grid, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Returns the sum of squared errors that rounding to nearest makes in each row, `(rows,)`."""
    step, zero = scale[:, None], zero_point[:, None]
    integers = (values * (1.0 / step)).round_().add_(zero).clamp_(grid.low, grid.high)
    return integers.sub_(zero).mul_(step).sub_(values).square_().sum(1)
