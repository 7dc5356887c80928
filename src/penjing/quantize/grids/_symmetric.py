"""Signed integers around zero: one scale per row of weights, and no zero point."""

import torch
from torch import Tensor

from penjing.quantize.grids._affine import SMALLEST_SCALE
from penjing.quantize.grids._integers import Grid

LARGEST_BIAS = 2.0**30  # half of int32: the other half is for the sum of the products


def symmetric(
    weight: Tensor, grid: Grid, axis: int = 0, bias: Tensor | None = None, input_scale: float | None = None
) -> Tensor:
    """Returns the scale of each output channel that just holds its largest weight; zero points are 0.

    Args:
        weight: with its output channels on `axis`.
        grid: symmetric integers.
        axis: of the channels.
        bias: `(channels,)`, which runtimes round to int32 multiples of `input_scale` times the weight's scale. A channel
            with (almost) no weights and some bias gets a scale so large that the bias fits.
        input_scale: of the activation that the weight is multiplied with.

    Returns:
        `(channels,)` float32, all above 0.
    """
    largest = weight.detach().float().movedim(axis, 0).flatten(1).abs().amax(1) if weight.dim() > 1 else weight.abs()
    scales = (largest / grid.high).clamp_min(SMALLEST_SCALE)
    if bias is not None and input_scale is not None:
        scales = scales.maximum(bias.detach().float().abs() / (input_scale * LARGEST_BIAS))
    # A channel of zeros holds with any scale; with its neighbours' its bias is rounded as finely as theirs.
    usual = scales.amax() if bool((largest > 0).any()) else torch.tensor(1.0 / grid.high, device=scales.device)
    return torch.where(largest > 0, scales, usual.maximum(scales))
