"""How long ops and whole models take on a target: kernels, the table of their measured latencies, predictions from it."""

from penjing.planning.latency.kernels import (
    DEQUANTIZE,
    FLOAT32,
    INT8,
    QUANTIZE,
    Kernel,
    activations_of,
    boundary,
    kernels_of,
)
from penjing.planning.latency.predict import Context, Correction, Predictor, Whole, corrected, measure_wholes
from penjing.planning.latency.side_by_side import side_by_side
from penjing.planning.latency.sizes import grid
from penjing.planning.latency.table import LatencyTable

__all__ = [
    "DEQUANTIZE",
    "FLOAT32",
    "INT8",
    "QUANTIZE",
    "Context",
    "Correction",
    "Kernel",
    "LatencyTable",
    "Predictor",
    "Whole",
    "activations_of",
    "boundary",
    "corrected",
    "grid",
    "kernels_of",
    "measure_wholes",
    "side_by_side",
]
