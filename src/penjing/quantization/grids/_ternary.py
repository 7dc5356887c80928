"""Weights of −1, 0 and 1 times a scale."""

import torch

from penjing.quantization.grids._affine import SMALLEST_SCALE
from penjing.quantization.grids._int import like_neighbours
from penjing.quantization.grids._integers import Grid
from penjing.quantization.grids._registry import GRAINS, Rows, Scaled, grids

TERNARY = Grid("ternary", torch.int8, -1, 1)


@grids.register(
    source="Li et al. 2016, Ternary Weight Networks, arXiv:1605.04711",
    grains=GRAINS,
    integer=False,
    bits=2,
)
def ternary(rows: Rows, number: int) -> Scaled:
    """−1, 0 or 1 times a scale: 0 up to 0.7 of the mean magnitude; the scale is the mean magnitude of the other weights.

    The threshold is the paper's closed-form approximation of the best threshold, so nothing is searched. The paper has one
    scale per layer, which is `grain="tensor"`.
    """
    magnitude = rows.values.abs()
    kept = magnitude > 0.7 * magnitude.mean(1, keepdim=True)
    count = kept.sum(1)
    scale = ((magnitude * kept).sum(1) / count.clamp_min(1)).clamp_min(SMALLEST_SCALE)
    if rows.least is not None:
        scale = scale.maximum(rows.least)
    return Scaled(TERNARY, (rows.values.sign() * kept).to(torch.int8), like_neighbours(scale, count > 0, 1.0))
