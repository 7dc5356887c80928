"""Prepares a quantised graph for training in which the ranges of its grids are learned, and turns it back afterwards.

The graph in training is a copy of the quantised one, in which one function with gradients replaces each pair, and folded
batch norms are batch norms again. Nothing here trains: `QuantizedTraining` is the callback of a training.
"""

from penjing.quantization.training._methods import Method, methods
from penjing.quantization.training._stages import bits_at
from penjing.quantization.training._training import QuantizedTraining

__all__ = ["Method", "QuantizedTraining", "bits_at", "methods"]
