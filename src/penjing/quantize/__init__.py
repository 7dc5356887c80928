"""Storing and computing in 8-bit integers: which values are rounded where, to which grid, and how its range is found.

Nothing here trains. The graphs that come out can be trained, with straight-through gradients; `QuantizedTraining` is the
callback of a training that learns ranges, too.
"""

from penjing.quantize._choices import FLOAT
from penjing.quantize._constant import ConstantActivations
from penjing.quantize._numbers import check_integers
from penjing.quantize._placement import Placed, Site, place
from penjing.quantize._places import modules_by_place, weights_by_place
from penjing.quantize._quantize import NothingToQuantize, quantize
from penjing.quantize._sensitivity import sensitivity
from penjing.quantize.corrections import corrections
from penjing.quantize.grids import ACTIVATION_GRIDS, Affine, Grid, affine, find_grid, grids, integers, symmetric
from penjing.quantize.observers import observers
from penjing.quantize.rounding import roundings
from penjing.quantize.training import QuantizedTraining, methods

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
