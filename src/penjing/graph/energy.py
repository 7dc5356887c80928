"""The energy that a network needs for a sample, estimated from its multiplications and the bytes that it moves.

There is one class of devices, a processor in 45 nm with main memory beside it, since its constants are published together:
M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure 1.1.9. Newer processors need less for
everything, and all of them more for fetching and decoding instructions, which isn't counted. So an estimate compares networks on
like devices; it says little about what a meter would show.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penjing.graph.cost import Row

# Picojoules of a multiply-accumulate: Horowitz's multiplication and addition. Products of integers are summed in 32 bits (0.1).
MAC: Mapping[str, float] = {
    "float32": 3.7 + 0.9,
    "float16": 1.1 + 0.4,
    "int8": 0.2 + 0.1,
    "int32": 3.1 + 0.1,
}
# Picojoules per byte. A weight comes from main memory once a call: 1.3 nJ for 8 bytes, the lower end of Horowitz's range.
WEIGHT = 1300 / 8
# A value is written by one op and read by the next through a cache of 1 MiB: 100 pJ for 8 bytes.
VALUE = 100 / 8

MILLIJOULES = 1e-9  # in a picojoule
# Ops that a file doesn't hold, or that runtimes compute while they write what the op in front of them made.
WITHIN_OTHERS = frozenset(
    {"relu", "relu6", "hardtanh", "clamp", "batch_norm", "dropout", "contiguous", "clone", "detach"}
)


def picojoules(numbers: str, macs: float, values: float, weights: float) -> float:
    """Returns the energy of an op.

    Args:
        numbers: what it computes in; see `MAC`.
        macs: its multiply-accumulates.
        values: bytes of the values that it reads and writes.
        weights: bytes of the weights that it reads.
    """
    return macs * MAC[numbers] + values * VALUE + weights * WEIGHT


def millijoules(rows: "Iterable[Row]", batch: int = 1) -> float:
    """Returns the energy of a call with `batch` samples; weights are read once for all of them."""
    total = 0.0
    for row in rows:
        if row.op not in WITHIN_OTHERS:
            moved, whole = row.traffic, row.traffic.numbers.startswith("int")
            values = moved.integer_values if whole else moved.values
            total += picojoules(moved.numbers, batch * row.macs, batch * values, moved.weights)
    return total * MILLIJOULES
