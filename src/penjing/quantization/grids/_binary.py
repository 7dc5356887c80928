"""Weights of −1 and 1 times a scale."""

import torch

from penjing.quantization.grids._affine import SMALLEST_SCALE
from penjing.quantization.grids._integers import Grid
from penjing.quantization.grids._registry import GRAINS, Rows, Scaled, grids

BINARY = Grid("binary", torch.int8, -1, 1)


@grids.register(
    source="Rastegari et al. 2016, XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks, "
    "arXiv:1603.05279; Courbariaux et al. 2015, BinaryConnect, arXiv:1511.00363",
    grains=GRAINS,
    integer=False,
    bits=1,
    zero=False,
)
def binary(rows: Rows, number: int) -> Scaled:
    """The sign of a weight times the mean magnitude of its row, which is the scale with the least squared error."""
    scale = rows.values.abs().mean(1).clamp_min(SMALLEST_SCALE)
    if rows.least is not None:
        scale = scale.maximum(rows.least)
    return Scaled(BINARY, torch.where(rows.values < 0, -1, 1).to(torch.int8), scale)
