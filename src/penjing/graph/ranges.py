"""What values an input takes, as far as its example shows: random values stand for real ones only within these.

Codes of categories that come as floats index tables, lengths must fit, a logarithm takes what is positive. Only ranges
are kept, never a value of the user's beside them, since they stand in every file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penjing import records
from penjing.errors import PenjingError

LARGEST_COLUMNS = 128  # most entries of an axis with separate ranges; longer axes hold positions, not columns
LARGEST_WHOLE = 2.0**24  # up to here float32 can represent every integer
LARGEST = 2**61  # so that the width of a range is an int64 too
NORMAL = 6.0  # standard deviations: values within may pass for standard normal ones

Number = int | float


@dataclass(frozen=True)
class Columns:
    """The ranges along one axis, over all others.

    Attributes:
        axis: which one.
        low: smallest value per index.
        high: largest value per index.
        whole: whether all values at an index are whole numbers.
    """

    axis: int
    low: tuple[Number, ...]
    high: tuple[Number, ...]
    whole: tuple[bool, ...]


@dataclass(frozen=True)
class Ranges:
    """What values an input takes. Of floats that could be standard normal, or of which nothing is known, both ends are 0.

    Attributes:
        low: smallest value.
        high: largest value.
        whole: whether all values are whole numbers, as integers are.
        columns: ranges along single axes, where they say more. An entry lies within those of all its indices.
    """

    low: Number = 0
    high: Number = 0
    whole: bool = False
    columns: tuple[Columns, ...] = ()

    @classmethod
    def of(cls, example: Tensor, free: frozenset[int]) -> "Ranges":
        """Returns the ranges of `example`; those along `free` axes, and along the batch, are left out."""
        floating = example.is_floating_point()
        if example.numel() == 0 or example.is_complex():
            return cls()
        values = example.detach().to(torch.float64 if floating else torch.int64)
        known = values[values.isfinite()].clamp(-LARGEST, LARGEST)
        if not len(known):
            return cls()
        low, high = known.min(), known.max()
        if floating and low == high:  # ones or zeros: an example of a shape
            return cls()
        values = torch.where(values.isfinite(), values.clamp(-LARGEST, LARGEST), low)
        whole = (values == values.round()) & (values.abs() <= LARGEST_WHOLE) if floating else torch.tensor(False)
        axes = range(1, min(values.dim(), 3) if values.dim() < 4 else 2)  # of images the channels only
        columns = tuple(
            _columns(values, whole.expand_as(values), axis)
            for axis in axes
            if axis not in free and 1 < values.shape[axis] <= LARGEST_COLUMNS
        )
        telling = tuple(one for one in columns if len({*zip(one.low, one.high, one.whole, strict=True)}) > 1)
        if floating and -NORMAL <= low < 0 < high <= NORMAL and not any(any(one.whole) for one in columns):
            return cls()
        return cls(_number(low), _number(high), bool(whole.all()), telling)

    def sample(self, shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        """Returns random values of that shape: integers and whole numbers uniform within their ranges, floats uniform
        within theirs, or standard normal where there is none.
        """
        continuous = dtype.is_floating_point or dtype.is_complex
        if continuous and self.low == self.high:
            drawn = dtype if dtype.itemsize > 1 else torch.float32  # PyTorch draws no float8
            return torch.randn(tuple(shape), generator=generator, dtype=drawn).to(dtype)
        if not continuous and not self.columns:
            return torch.randint(int(self.low), int(self.high) + 1, tuple(shape), generator=generator).to(dtype)
        low, high, whole = self._spread(shape, torch.float64 if continuous else torch.int64)
        first = low.ceil().to(torch.int64)
        counts = high.floor().to(torch.int64) - first + 1
        integers = first + torch.randint(0, 2**63 - 1, tuple(shape), generator=generator) % counts.clamp(min=1)
        if not continuous:
            return integers.to(dtype)
        share = torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
        return torch.where(whole, integers.double(), low + share * (high - low)).to(dtype)

    def _spread(self, shape: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the ends of every entry's range, and whether it is whole."""
        low, high = torch.full(tuple(shape), self.low, dtype=dtype), torch.full(tuple(shape), self.high, dtype=dtype)
        whole = torch.full(tuple(shape), self.whole)
        for one in self.columns:
            along = [-1 if axis == one.axis else 1 for axis in range(len(shape))]
            low = low.maximum(torch.tensor(one.low, dtype=dtype).reshape(along))
            high = high.minimum(torch.tensor(one.high, dtype=dtype).reshape(along))
            whole = whole | torch.tensor(one.whole).reshape(along)
        if dtype.is_floating_point:
            constant = (low >= high) & ~whole  # of too few values to have a range of its own
            low, high = low.masked_fill(constant, self.low), high.masked_fill(constant, self.high)
        return low, high, whole

    def to_json(self) -> dict[str, Any]:
        """JSON, to be merged with the description of an input."""
        record: dict[str, Any] = {"range": [self.low, self.high]}
        if self.whole:
            record["whole"] = True
        if self.columns:
            record["columns"] = [
                [c.axis, list(c.low), list(c.high), [index for index, whole in enumerate(c.whole) if whole]]
                for c in self.columns
            ]
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any], shape: Sequence[int]) -> "Ranges":
        """Returns the ranges in a description of an input of that shape; older files hold `range`, or `low` and `high`.

        Raises:
            PenjingError: they make no sense.
        """
        found = records.convert(record, _RangesRecord, more=True)
        low, high = found.range or (found.low, found.high)
        columns = []
        for axis, lows, highs, whole in found.columns:
            fits = 0 <= axis < len(shape) and len(lows) == len(highs) == shape[axis]
            if not fits or len(lows) > LARGEST_COLUMNS:
                raise PenjingError(f"the ranges along axis {axis} don't fit the shape {tuple(shape)}")
            columns.append(Columns(axis, lows, highs, tuple(index in whole for index in range(len(lows)))))
        for a, b in [(low, high), *(pair for one in columns for pair in zip(one.low, one.high, strict=True))]:
            if not -LARGEST <= a <= b <= LARGEST:
                raise PenjingError(f"an input ranges from {a} to {b}")
        return cls(low, high, found.whole, tuple(columns))


@dataclass(frozen=True)
class _RangesRecord:
    """Ranges as they stand in a file. Older files hold `low` and `high` in the place of `range`.

    Attributes:
        range: both ends.
        whole: whether all values are whole numbers.
        columns: axis, smallest values, largest values, and the indices at which all values are whole numbers.
        low: smallest value.
        high: largest value.
    """

    range: tuple[Number, Number] | None = None
    whole: bool = False
    columns: tuple[tuple[int, tuple[Number, ...], tuple[Number, ...], frozenset[int]], ...] = ()
    low: Number = 0
    high: Number = 0


UNKNOWN = Ranges()
"""Of an input of which nothing is known."""


def _number(value: Tensor) -> Number:
    """Returns an integer where a value is one, so that it stays short in a file."""
    number: Number = value.item()
    return int(number) if number == int(number) else number


def _columns(values: Tensor, whole: Tensor, axis: int) -> Columns:
    over = [other for other in range(values.dim()) if other != axis]
    low, high = values.amin(over), values.amax(over)
    every = whole.movedim(axis, 0).flatten(1).all(1)
    return Columns(axis, tuple(map(_number, low)), tuple(map(_number, high)), tuple(every.tolist()))
