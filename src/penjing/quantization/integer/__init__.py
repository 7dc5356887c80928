"""A reference that runs quantised graphs with integer arithmetic alone, as a chip without floating point would.

Between the first quantise and the last dequantise there are integers only: int32 sums of products, biases rounded to the
sums' scale, and fixed-point factors that bring sums back to few bits. One file per family of ops; a new op is one function.
"""

from penjing.quantization.integer import _arithmetic, _lookup, _moving, _pooling, _products
from penjing.quantization.integer._fixed_point import FixedPoint, rounding_shift
from penjing.quantization.integer._only_integers import OnlyIntegers
from penjing.quantization.integer._runner import Runner
from penjing.quantization.integer._table import FORMS, Call, Codes, Kernel, NoIntegerForm, integer

__all__ = [
    "FORMS",
    "Call",
    "Codes",
    "FixedPoint",
    "Kernel",
    "NoIntegerForm",
    "OnlyIntegers",
    "Runner",
    "integer",
    "rounding_shift",
]

_FAMILIES = (_arithmetic, _lookup, _moving, _pooling, _products)  # importing them fills the table
