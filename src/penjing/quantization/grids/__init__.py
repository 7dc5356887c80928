"""The values that weights and activations are rounded to: one file per grid.

A new grid of weights is one new file that registers one function.
"""

from penjing.quantization.grids._affine import SMALLEST_SCALE, Affine, affine
from penjing.quantization.grids._binary import binary
from penjing.quantization.grids._codebook import codebook
from penjing.quantization.grids._int import signed, symmetric
from penjing.quantization.grids._integers import ACTIVATION_GRIDS, Grid, integers
from penjing.quantization.grids._least_error import FEW_BITS
from penjing.quantization.grids._power_of_two import power_of_two
from penjing.quantization.grids._registry import Laid, Rows, Scaled, Shared, WeightGrid, find_grid, grids
from penjing.quantization.grids._ternary import ternary
from penjing.quantization.grids._uint import unsigned

__all__ = [
    "ACTIVATION_GRIDS",
    "FEW_BITS",
    "SMALLEST_SCALE",
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
