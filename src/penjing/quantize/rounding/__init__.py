"""Which integer a weight goes to: one file per rounding.

A new rounding is one new file that registers one function.
"""

from penjing.quantize.rounding._adaround import adaround
from penjing.quantize.rounding._layer import Layer
from penjing.quantize.rounding._nearest import nearest
from penjing.quantize.rounding._registry import Rounding, find_rounding, roundings
from penjing.quantize.rounding._samples import Collector, Samples
from penjing.quantize.rounding._stochastic import stochastic
from penjing.quantize.rounding._truncate import truncate

__all__ = [
    "Collector",
    "Layer",
    "Rounding",
    "Samples",
    "adaround",
    "find_rounding",
    "nearest",
    "roundings",
    "stochastic",
    "truncate",
]
