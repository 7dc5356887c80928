"""Quantisation: which values are rounded to few bits, to which grid, and how the range of that grid is found.

Nothing here trains. The quantised graphs can be trained, with straight-through gradients; `QuantizedTraining` is the
callback of a training that also learns the ranges.
"""

from penjing.quantization.calibration.constant import ConstantActivations
from penjing.quantization.calibration.sensitivity import sensitivity
from penjing.quantization.corrections import corrections
from penjing.quantization.grids import ACTIVATION_GRIDS, Affine, Grid, affine, find_grid, grids, integers, symmetric
from penjing.quantization.observers import observers
from penjing.quantization.placement.numbers import check_integers, check_weights
from penjing.quantization.placement.sites import Placed, Site, place
from penjing.quantization.rounding import roundings
from penjing.quantization.settings import QuantizationSettings
from penjing.quantization.training import QuantizedTraining, methods
from penjing.quantization.verb import NothingToQuantize, quantize, quantize_with
from penjing.quantization.weights.choices import FLOAT, grid_of
from penjing.quantization.weights.places import modules_by_place, weights_by_place

__all__ = [
    "ACTIVATION_GRIDS",
    "FLOAT",
    "Affine",
    "ConstantActivations",
    "Grid",
    "NothingToQuantize",
    "Placed",
    "QuantizationSettings",
    "QuantizedTraining",
    "Site",
    "affine",
    "check_integers",
    "check_weights",
    "corrections",
    "find_grid",
    "grid_of",
    "grids",
    "integers",
    "methods",
    "modules_by_place",
    "observers",
    "place",
    "quantize",
    "quantize_with",
    "roundings",
    "sensitivity",
    "symmetric",
    "weights_by_place",
]
