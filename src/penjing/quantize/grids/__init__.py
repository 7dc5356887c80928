"""The values that weights and activations are rounded to: one file per grid.

A new grid of weights is one new file that registers one function.
"""

from penjing.quantize.grids._affine import Affine, affine
from penjing.quantize.grids._integers import ACTIVATION_GRIDS, Grid, integers
from penjing.quantize.grids._symmetric import symmetric

__all__ = ["ACTIVATION_GRIDS", "Affine", "Grid", "affine", "integers", "symmetric"]
