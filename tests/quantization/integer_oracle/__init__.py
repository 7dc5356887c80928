"""The tests' oracle of integer runtimes: runs quantised graphs with integer arithmetic alone, as without a floating-point unit.

Between the first quantise and the last dequantise there are integers only: int32 sums of products, biases rounded to the
sums' scale, and fixed-point factors that bring sums back to few bits. One file per family of ops; a new op is one function.
"""

from integer_oracle import _arithmetic, _lookup, _moving, _pooling, _products
from integer_oracle._fixed_point import FixedPoint, rounding_shift
from integer_oracle._only_integers import OnlyIntegers
from integer_oracle._runner import Runner
from integer_oracle._table import FORMS, Call, Codes, Kernel, NoIntegerForm, integer

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
