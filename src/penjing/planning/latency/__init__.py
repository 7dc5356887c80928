"""How long ops and whole models take on a target: kernels, the table of their measured latencies, predictions from it."""

from penjing.planning.latency.kernels import DEQUANTIZE, FLOAT32, INT8, QUANTIZE, Kernel, boundary, kernels_of
from penjing.planning.latency.table import LatencyTable

__all__ = [
    "DEQUANTIZE",
    "FLOAT32",
    "INT8",
    "QUANTIZE",
    "Kernel",
    "LatencyTable",
    "boundary",
    "kernels_of",
]
