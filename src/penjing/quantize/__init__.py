"""Storing and computing in 8-bit integers: which values are rounded where, to which grid, and how its range is found.

Nothing here trains; the graphs that come out can be trained, with straight-through gradients.
"""

from penjing.quantize._onnxruntime import ONNXRUNTIME
from penjing.quantize._placement import Placed, Placement, Site, place
from penjing.quantize._quantize import NothingToQuantize, quantize
from penjing.quantize.corrections import corrections
from penjing.quantize.grids import ACTIVATION_GRIDS, Affine, Grid, affine, grids, integers, symmetric
from penjing.quantize.observers import observers
from penjing.quantize.rounding import roundings

__all__ = [
    "ACTIVATION_GRIDS",
    "ONNXRUNTIME",
    "Affine",
    "Grid",
    "NothingToQuantize",
    "Placed",
    "Placement",
    "Site",
    "affine",
    "corrections",
    "grids",
    "integers",
    "observers",
    "place",
    "quantize",
    "roundings",
    "symmetric",
]
