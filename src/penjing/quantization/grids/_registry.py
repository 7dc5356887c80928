"""The table of weight grids, and the forms in which they give a layer's weights."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from penjing.errors import PenjingError, unknown_name
from penjing.quantization.grids._integers import INTEGERS, LARGEST_BITS, SMALLEST_BITS, Grid
from penjing.registry import Entry, Registry


@dataclass(frozen=True)
class Rows:
    """A layer's weights in rows, each of which gets a scale or a table.

    Attributes:
        values: `(rows, weights)` float32.
        least: `(rows,)`, the smallest scale with which the layer's bias fits into 32 bits; None where the bias sets no limit.
        zeros: whether some weights are zero, as pruning leaves them; these must stay exactly zero.
    """

    values: Tensor
    least: Tensor | None = None
    zeros: bool = False


@dataclass(frozen=True)
class Laid:
    """Integers laid over rows: `real = scale · (integer − zero_point)`. A rounding chooses the integer of each weight.

    Attributes:
        grid: the integers.
        scale: `(rows,)` float32, all above 0.
        zero_point: `(rows,)` int64.
    """

    grid: Grid
    scale: Tensor
    zero_point: Tensor


@dataclass(frozen=True)
class Scaled:
    """Rows as integers times a scale, rounded by the grid's own rule.

    Attributes:
        grid: the integers.
        codes: `(rows, weights)` integers of the grid's type.
        scale: `(rows,)` float32.
    """

    grid: Grid
    codes: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Shared:
    """Rows as indices into tables of shared values.

    Attributes:
        codes: the indices, `(rows, weights)` uint8.
        table: `(rows, values)` float32.
        zero_first: whether the first value of every table is 0 and stays 0.
    """

    codes: Tensor
    table: Tensor
    zero_first: bool


GrainKind = Literal["channel", "tensor", "group"]

Lay = Callable[[Rows, int], Laid | Scaled | Shared]
"""A grid is called as `grid(rows, number)`, with the number behind the grid's name, 0 where there is none."""


@dataclass(frozen=True)
class GridNumber:
    """The number that a user writes behind a grid's name.

    Attributes:
        lowest: the smallest number that is allowed.
        highest: the largest number that is allowed.
        counts: whether the number counts bits or values.
        usual: the number where the user gives none; None where the user must give one.
    """

    lowest: int
    highest: int
    counts: Literal["bits", "values"] = "bits"
    usual: int | None = None


@dataclass(frozen=True, kw_only=True)
class GridEntry(Entry[Lay]):
    """A registered grid.

    Attributes:
        grains: the grains that the grid works with, the default first.
        integer: whether the rounding that the user chooses picks the integers, instead of the grid's own rule.
        bits: bits per weight, or the number behind the grid's name that gives them.
        zero: whether the grid holds a zero.
    """

    grains: tuple[GrainKind, ...]
    integer: bool
    bits: int | GridNumber
    zero: bool = True


grids = Registry("grid", GridEntry)


@dataclass(frozen=True)
class WeightGrid:
    """A grid as the user named it.

    Attributes:
        name: the name as it was typed, such as "int4" or "codebook:16".
        entry: the grid's entry in `grids`.
        number: the number behind the name; 0 where there is none.
    """

    name: str
    entry: GridEntry
    number: int

    @property
    def is_integer(self) -> bool:
        """Tells whether weights stay real numbers that a pair of quantise and dequantise ops rounds."""
        return self.entry.integer

    @property
    def bits(self) -> int:
        """Number of bits that tell a weight's value apart from all others of the grid."""
        if isinstance(self.entry.bits, int):
            return self.entry.bits
        return (self.number - 1).bit_length() if self.counts_values else self.number

    @property
    def counts_values(self) -> bool:
        """Tells whether the number counts values, as those of a table, instead of bits."""
        return isinstance(self.entry.bits, GridNumber) and self.entry.bits.counts == "values"

    def lay(self, rows: Rows) -> Laid | Scaled | Shared:
        """Lays the grid over the rows."""
        return self.entry.function(rows, self.number)


def find_grid(name: str) -> WeightGrid:
    """Reads the name of a grid for weights.

    Raises:
        PenjingError: the name is unknown, or the number in it is missing or out of range.
    """
    found = re.fullmatch(r"(u?int)(\d+)", name) if isinstance(name, str) else None
    key, _, text = (f"{found[1]}N", "", found[2]) if found else str(name).partition(":")
    if key not in grids or (found is None and key in ("intN", "uintN")):
        raise unknown_name("grid", str(name), [*INTEGERS, *(k for k in grids if k not in ("intN", "uintN"))])
    entry = grids[key]
    known = entry.bits
    if isinstance(known, int):
        if text:
            raise PenjingError(f"The grid '{key}' takes no number, so '{name}' means nothing.")
        return WeightGrid(name, entry, 0)
    low, high = known.lowest, known.highest
    if not text:
        if known.usual is None:
            raise PenjingError(f"The grid '{key}' needs a number from {low} to {high}, as in '{key}:{high}'.")
        return WeightGrid(name, entry, known.usual)
    if not text.isdecimal() or not low <= int(text) <= high:
        raise PenjingError(f"The number in the grid '{name}' must be {low} to {high}, not {text}.")
    return WeightGrid(name, entry, int(text))


BITS = GridNumber(SMALLEST_BITS, LARGEST_BITS)
GRAINS: tuple[GrainKind, ...] = ("channel", "tensor", "group")
