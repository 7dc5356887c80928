"""Roundings that are trained: what is learned of their ranges, and the way there and back to what a runtime loads.

The graph in training is a copy of the quantised one, in which each pair is one function with gradients, and in which the
folded batch norms are themselves again. Nothing here trains: `QuantizedTraining` is the callback of a training.
"""

from penjing.quantization.training._methods import Method, methods
from penjing.quantization.training._stages import bits_at
from penjing.quantization.training._training import QuantizedTraining

__all__ = ["Method", "QuantizedTraining", "bits_at", "methods"]
