"""The table of granularities."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from penjing.errors import PenjingError, unknown_name
from penjing.graph import Channels, Graph, Group
from penjing.registry import Entry, Registry

Removes = Literal["channels", "branches", "weights"]

Granularity = Callable[..., Any]
"""What stands or falls together, as a function of a kind that follows from what goes: see `GranularityEntry`."""


Stays = Callable[..., list[Tensor]]
"""Which rows of weights stay, where the granularity itself knows how many: for each weight booleans `(rows,)`.

Called as `stays(saliency, shapes, **arguments)`: with the saliency of the rows of each weight, `(rows,)`, summed over their
members (that of several rows is their sum), the shapes of the weights as the view gets them, and the arguments out of the
name.
"""


@dataclass(frozen=True, kw_only=True)
class GranularityEntry(Entry[Granularity]):
    """A registered granularity.

    A name may hold numbers, and some carry their own amount.

    Attributes:
        removes: what goes, and with it what the function is:

            - "channels": from evidence, the saliency of weights and a criterion's last step to one `(units,)` tensor per
              group of the graph's channels;
            - "branches": the same, for one group, all residual branches;
            - "weights": a view. From a weight `(out_channels, in_channels, *kernel)` to `(rows, members)`, each row of which
              stands or falls together, or None where the weight has no such rows. Shapes stay, and what goes is masked.
        among: of channels: gives the groups that count, from a graph and its channels; None where all of them do.
        units: of channels: how they must be labelled; None where the user may choose.
        kernels: of weights: it looks into kernels, so that no one wonders that matrices stay.
        shrink: of weights: makes a masked graph smaller where that is possible, given the names of the weights, and also
            returns what became of each weight, in words; None where shapes stay.
        read: makes the function's keyword arguments of what the user typed, and returns None if that is no such name. None
            where the name alone is what the user types.
        example: a name with numbers, where names need them.
        stays: of weights: says which rows stay, as the best of a set that an amount can't express; None where the name
            carries no amount.
        keeps: where the rows that stay are n of every m in sequence: gives n and m from the keyword arguments.
    """

    removes: Removes
    among: Callable[[Graph, Channels], tuple[Group, ...]] | None = None
    units: str | None = None
    kernels: bool = False
    shrink: Callable[[Graph, Collection[str]], tuple[Graph, dict[str, str]]] | None = None
    read: Callable[[str], Mapping[str, Any] | None] | None = None
    example: str | None = None
    stays: Stays | None = None
    keeps: Callable[..., tuple[int, int]] | None = None


granularities = Registry("granularity", GranularityEntry)


@dataclass(frozen=True)
class ChosenGranularity:
    """A granularity as the user typed it.

    Attributes:
        name: that text.
        entry: what is registered.
        arguments: for the entry's function, out of the text.
    """

    name: str
    entry: GranularityEntry
    arguments: Mapping[str, Any]

    @property
    def removes(self) -> Removes:
        """What goes: "channels", "branches" or "weights"."""
        return self.entry.removes

    @property
    def stays(self) -> Callable[[Sequence[Tensor], Sequence[tuple[int, ...]]], list[Tensor]] | None:
        """Which rows stay, where the name says how many; else an amount and an allocation do."""
        return partial(self.entry.stays, **self.arguments) if self.entry.stays else None

    @property
    def keeps(self) -> tuple[int, int] | None:
        """How many of how many rows in sequence stay, where the name says so."""
        return self.entry.keeps(**self.arguments) if self.entry.keeps else None


def find(name: str) -> ChosenGranularity:
    """Returns the granularity that `name` means, numbers included: "filter", "2:4", "block:4x4".

    Raises:
        PenjingError: there is none, or its numbers make no sense.
    """
    for entry in granularities.values():
        arguments = entry.read(name) if entry.read else ({} if name == entry.name else None)
        if arguments is not None:
            return ChosenGranularity(name, entry, arguments)
    if name in granularities:
        raise PenjingError(f"granularity='{name}' needs its numbers, as in '{granularities[name].example}'.")
    raise unknown_name("granularity", name, granularities)
