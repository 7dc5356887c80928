"""Roundings choose the integer that each weight becomes: one file per rounding.

A new rounding is one new file that registers one function.
"""

from penjing.quantization.rounding._adaround import adaround
from penjing.quantization.rounding._brecq import brecq
from penjing.quantization.rounding._importance import gauss_newton
from penjing.quantization.rounding._nearest import nearest
from penjing.quantization.rounding._parts import Learned, Rounded, SampledSpan, Span
from penjing.quantization.rounding._quantease import quantease
from penjing.quantization.rounding._registry import Rounding, RoundingEntry, find_rounding, roundings
from penjing.quantization.rounding._spans import blocks, layers, products
from penjing.quantization.rounding._stochastic import stochastic
from penjing.quantization.rounding._truncate import truncate
from penjing.quantization.rounding._walk import Walk

__all__ = [
    "Learned",
    "Rounded",
    "Rounding",
    "RoundingEntry",
    "SampledSpan",
    "Span",
    "Walk",
    "adaround",
    "blocks",
    "brecq",
    "find_rounding",
    "gauss_newton",
    "layers",
    "nearest",
    "products",
    "quantease",
    "roundings",
    "stochastic",
    "truncate",
]
