"""Which integer a weight goes to: one file per rounding.

A new rounding is one new file that registers one function.
"""

from penjing.quantize.rounding._adaround import adaround
from penjing.quantize.rounding._brecq import brecq
from penjing.quantize.rounding._importance import gauss_newton
from penjing.quantize.rounding._nearest import nearest
from penjing.quantize.rounding._parts import Learned, Part, Rounded, Span
from penjing.quantize.rounding._quantease import quantease
from penjing.quantize.rounding._registry import Rounding, find_rounding, roundings
from penjing.quantize.rounding._spans import blocks, layers, products
from penjing.quantize.rounding._stochastic import stochastic
from penjing.quantize.rounding._truncate import truncate
from penjing.quantize.rounding._walk import Walk

__all__ = [
    "Learned",
    "Part",
    "Rounded",
    "Rounding",
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
