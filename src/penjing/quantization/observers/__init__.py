"""Observers choose the range that an activation's grid covers, from statistics of its values: one file per observer.

An observer's statistics are updated batch by batch in constant memory; its formula turns them into a range. A new observer is
one new file that registers one function.
"""

from penjing.quantization.observers._ema import ema
from penjing.quantization.observers._entropy import entropy
from penjing.quantization.observers._histogram import histogram
from penjing.quantization.observers._minmax import minmax
from penjing.quantization.observers._mse import mse
from penjing.quantization.observers._percentile import percentile
from penjing.quantization.observers._registry import ChosenObserver, Observer, find_observer, observers

__all__ = [
    "ChosenObserver",
    "Observer",
    "ema",
    "entropy",
    "find_observer",
    "histogram",
    "minmax",
    "mse",
    "observers",
    "percentile",
]
