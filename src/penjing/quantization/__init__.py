"""Storing and computing in 8-bit integers: which values are rounded where, to which grid, and how its range is found.

Nothing here trains. The graphs that come out can be trained, with straight-through gradients; `QuantizedTraining` is the
callback of a training that learns ranges, too.
"""

from penjing.quantization._choices import FLOAT
from penjing.quantization._constant import ConstantActivations
from penjing.quantization._numbers import check_integers
from penjing.quantization._placement import Placed, Site, place
from penjing.quantization._places import modules_by_place, weights_by_place
from penjing.quantization._quantize import NothingToQuantize, quantize
from penjing.quantization._sensitivity import sensitivity
from penjing.quantization.corrections import corrections
from penjing.quantization.grids import ACTIVATION_GRIDS, Affine, Grid, affine, find_grid, grids, integers, symmetric
from penjing.quantization.observers import observers
from penjing.quantization.rounding import roundings
from penjing.quantization.training import QuantizedTraining, methods

__all__ = [
    "ACTIVATION_GRIDS",
    "FLOAT",
    "Affine",
    "ConstantActivations",
    "Grid",
    "NothingToQuantize",
    "Placed",
    "QuantizedTraining",
    "Site",
    "affine",
    "check_integers",
    "corrections",
    "find_grid",
    "grids",
    "integers",
    "methods",
    "modules_by_place",
    "observers",
    "place",
    "quantize",
    "roundings",
    "sensitivity",
    "symmetric",
    "weights_by_place",
]
