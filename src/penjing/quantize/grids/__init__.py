"""The values that weights and activations are rounded to: one file per grid.

A new grid of weights is one new file that registers one function.
"""

from penjing.quantize.grids._affine import Affine, affine
from penjing.quantize.grids._binary import binary
from penjing.quantize.grids._codebook import codebook
from penjing.quantize.grids._int import signed, symmetric
from penjing.quantize.grids._integers import ACTIVATION_GRIDS, Grid, integers
from penjing.quantize.grids._power_of_two import power_of_two
from penjing.quantize.grids._registry import Laid, Rows, Scaled, Shared, WeightGrid, find_grid, grids
from penjing.quantize.grids._ternary import ternary
from penjing.quantize.grids._uint import unsigned

__all__ = [
    "ACTIVATION_GRIDS",
    "Affine",
    "Grid",
    "Laid",
    "Rows",
    "Scaled",
    "Shared",
    "WeightGrid",
    "affine",
    "binary",
    "codebook",
    "find_grid",
    "grids",
    "integers",
    "power_of_two",
    "signed",
    "symmetric",
    "ternary",
    "unsigned",
]
