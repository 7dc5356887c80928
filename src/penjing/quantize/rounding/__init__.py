"""Which integer a weight goes to: one file per rounding.

A new rounding is one new file that registers one function.
"""

from penjing.quantize.rounding._nearest import nearest
from penjing.quantize.rounding._registry import Rounding, find_rounding, roundings
from penjing.quantize.rounding._stochastic import stochastic
from penjing.quantize.rounding._truncate import truncate

__all__ = ["Rounding", "find_rounding", "nearest", "roundings", "stochastic", "truncate"]
