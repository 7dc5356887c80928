"""The table of roundings."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.quantization.rounding._parts import Span
from penjing.registry import Entry, Registry

Rounding = Callable[..., Any]
"""A function `rounding(real, generator)`: takes weights in steps of their grid, counted from its zero point; returns integers.

A learned rounding is called as `rounding(part, generator, number)` instead, for one part of the network after another, and
returns a `Learned`.
"""


@dataclass(frozen=True, kw_only=True)
class RoundingEntry(Entry[Rounding]):
    """A registered rounding.

    Attributes:
        spans: splits the network into parts for a learned rounding, as `layers` and `blocks` do; None where nothing is
            learned.
        importance: weighs the channels of the parts' outputs for a learned rounding, as `gauss_newton` does; None where all
            channels count alike.
        number: the meaning of the number that the user may write behind the name; None where no number is allowed.
    """

    spans: Callable[[Graph, Sequence[fx.Node]], list[Span]] | None = None
    importance: (
        Callable[[Graph, Iterable[Sequence[Tensor]], Mapping[str, int], torch.Generator], dict[str, Tensor]] | None
    ) = None
    number: str | None = None

    @property
    def learned(self) -> bool:
        """Whether the rounding is learned from data."""
        return self.spans is not None


roundings = Registry("rounding", RoundingEntry)


def find_rounding(given: str) -> tuple[RoundingEntry, int | None]:
    """Parses "nearest" or "adaround:500"; returns the rounding and the number behind its name.

    Raises:
        PenjingError: the name is unknown, or the text behind it is no number.
    """
    name, colon, text = given.partition(":") if isinstance(given, str) else (str(given), "", "")
    entry = roundings[name]
    if not colon:
        return entry, None
    if entry.number is None:
        raise PenjingError(f"The rounding '{name}' takes no number, so '{given}' means nothing.")
    if not text.isdecimal() or int(text) < 1:
        raise PenjingError(f"The number in the rounding '{given}' must be a whole one above 0: {entry.number}.")
    return entry, int(text)
