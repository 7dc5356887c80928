"""The table of allocations, and the rounding that they share."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from penjing.errors import PenjingError
from penjing.registry import Entry, Registry

Rounding = int | Callable[[int], int] | None
"""Which widths are allowed: multiples of a number, or a function from the wanted number of units to the number to keep."""


@dataclass(frozen=True)
class Scored:
    """A place whose units have scores: a group of channels, a layer, or the residual branches together.

    Attributes:
        name: name of the group or layer.
        shape: shape of its weight, or of the first of its weights.
        without: function from the units that go, booleans `(units,)`, to the graph's tensors that change, by name: the
            units' entries are zero in them. None where units aren't entries of tensors.
    """

    name: str
    shape: tuple[int, ...]
    without: Callable[[Tensor], dict[str, Tensor]] | None = None


Allocation = Callable[..., list[int]]
"""A function `(scores, amount, rounding, places)` that returns how many units each group keeps. `scores` holds one tensor
`(units,)` per group; `places` and the result have the same order."""


@dataclass(frozen=True, kw_only=True)
class AllocationEntry(Entry[Allocation]):
    """A registered allocation.

    An allocation that needs data gets a further argument, `damage`: a function that measures how much the loss grows when
    some of the weakest units of one place go alone; see `sensitivity`.

    Attributes:
        takes: what the amount is: "share" for one number, the share of all that could go; "shares" for one share for each
            place, by its path.
        read: for names that hold a number: a function from a typed name to the amount in it, or to None if the name isn't
            of this form.
        example: a name with a number, where names need one.
    """

    takes: Literal["share", "shares"] = "share"
    read: Callable[[str], float | None] | None = None
    example: str | None = None


allocations = Registry("allocation", AllocationEntry)


@dataclass(frozen=True)
class ChosenAllocation:
    """An allocation as the user typed it.

    Attributes:
        name: the name as typed.
        entry: the registered allocation.
        amount: the number in the name; None if there is none.
    """

    name: str
    entry: AllocationEntry
    amount: float | None = None


def find(name: str) -> ChosenAllocation:
    """Returns the allocation that `name` means, its amount included: "global", "threshold:0.01".

    Raises:
        PenjingError: there is no such allocation, or the name lacks its number.
    """
    for entry in allocations.values():
        amount = entry.read(name) if entry.read else None
        if amount is not None:
            return ChosenAllocation(name, entry, amount)
    entry = allocations[name]
    if entry.read:
        raise PenjingError(f"allocation='{name}' needs its number, as in '{entry.example}'.")
    return ChosenAllocation(name, entry)


def rounded(kept: int, units: int, rounding: Rounding) -> int:
    """Returns how many of `units` units to keep when `kept` are wanted: the nearest allowed number, at least one step."""
    if callable(rounding):
        kept = rounding(kept)
    elif rounding is not None:
        kept = _multiple(kept, rounding)
    return min(max(kept, 1), units)


def at_least(least: int, rounding: Rounding) -> Rounding:
    """Returns a rounding that keeps `least` units or more, rounded up to the next multiple where multiples are asked for.

    Raises:
        PenjingError: (when the rounding is used) the user's function returns something else than a whole number.
    """
    if callable(rounding):
        return lambda kept: max(_called(rounding, kept), least)
    if least == 1:
        return rounding
    step = rounding or 1
    return lambda kept: max(_multiple(kept, step), math.ceil(least / step) * step)


def _multiple(kept: int, step: int) -> int:
    return max(step, step * math.floor(kept / step + 0.5))


def _called(rounding: Callable[[int], int], kept: int) -> int:
    allowed = rounding(kept)
    try:
        return operator.index(allowed)
    except TypeError:
        raise PenjingError(f"round_to must give a whole number of units, and for {kept} gave {allowed!r}.") from None
