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
"""Widths that the runtime likes: a multiple, or a function from the wanted number of units to the one to keep."""


@dataclass(frozen=True)
class Scored:
    """What scores belong to.

    Attributes:
        name: of a group or a layer.
        shape: of (the first of) its weights.
        without: from which units go, `(units,)`, to the tensors of the graph that are then others, by name: what units
            hold is zero in them. None where units are no part of tensors.
    """

    name: str
    shape: tuple[int, ...]
    without: Callable[[Tensor], dict[str, Tensor]] | None = None


Allocation = Callable[..., list[int]]
"""From the scores of each group's units, the amount, the rounding and the places to the number of units that each group keeps:
`(scores, amount, rounding, places)`, lists in the same order."""


@dataclass(frozen=True, kw_only=True)
class AllocationEntry(Entry[Allocation]):
    """A registered allocation.

    Those that need data get `damage`, too: what the loss gains when so many of the weakest units of a place go alone; see
    `sensitivity`.

    Attributes:
        takes: what the amount is: a "share" of all that could go, or "shares", one for each place by its path.
        read: where names hold a number: gives the amount that the user typed in the name, or None if that is no such name.
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
        name: that text.
        entry: what is registered.
        amount: out of the text; None where it holds none.
    """

    name: str
    entry: AllocationEntry
    amount: float | None = None


def find(name: str) -> ChosenAllocation:
    """Returns the allocation that `name` means, its amount included: "global", "threshold:0.01".

    Raises:
        PenjingError: there is none, or it lacks its number.
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
    """Returns how many of `units` to keep when `kept` were wanted: the nearest allowed number, at least one step."""
    if callable(rounding):
        kept = rounding(kept)
    elif rounding is not None:
        kept = _multiple(kept, rounding)
    return min(max(kept, 1), units)


def at_least(least: int, rounding: Rounding) -> Rounding:
    """Returns a rounding that keeps `least` units or more: the next multiple where multiples are asked for.

    Raises:
        PenjingError: (when it is used) the user's function gives something else than a whole number.
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
