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
"""A function that says which weights stand or fall together; `GranularityEntry.removes` documents its arguments."""


Stays = Callable[..., list[Tensor]]
"""A function that says which rows of weights stay, where the granularity's name fixes how many: for each weight booleans
`(rows,)`.

It is called as `stays(saliency, shapes, **arguments)`. `saliency` holds one tensor `(rows,)` for each weight, summed over the
members of each row; the saliency of several rows is their sum. `shapes` are the weights' shapes as the view gets them, and
`arguments` are those in the name.
"""


@dataclass(frozen=True, kw_only=True)
class GranularityEntry(Entry[Granularity]):
    """A registered granularity.

    A granularity's name may hold numbers, and some of these numbers say how much stays.

    Attributes:
        removes: what goes. The kind of the function depends on it:

            - "channels": a function of evidence, the saliencies of weights and the criterion's last step. It returns the
              scores, one tensor `(units,)` for each group of the graph's channels.
            - "branches": the same with a single group, all residual branches.
            - "weights": a view, from a weight `(out_channels, in_channels, *kernel)` to `(rows, members)`. The members of a
              row stand or fall together. None where the weight has no such rows. Shapes stay, and masks zero what goes.
        among: for channels: a function from a graph and its channels to the groups that may go; None where all may.
        units: for channels: the units of attention; None where the user may choose them.
        kernels: for weights: whether the view is one of kernels. Matrices, which have none, then stay without a warning.
        shrink: for weights: a function that makes a masked graph smaller where that is possible. It takes the graph and the
            weights' names, and also returns what became of each weight, in words. None where shapes stay.
        read: a function from a typed name to the keyword arguments in it, or to None if the name isn't of this form. None
            where the registered name is what the user types.
        example: a name with numbers, where names need them.
        stays: for weights: a function that says which rows stay, for a choice that an amount can't express. None where an
            amount says how many stay.
        keeps: where n of every m rows in sequence stay: a function from the keyword arguments to n and m.
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
        name: the name as typed.
        entry: the registered granularity.
        arguments: keyword arguments of the entry's functions, read from the name.
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
        """A function that says which rows stay, where the name fixes how many; None where an amount says it."""
        return partial(self.entry.stays, **self.arguments) if self.entry.stays else None

    @property
    def keeps(self) -> tuple[int, int] | None:
        """The numbers n and m, where the name says that n of every m rows in sequence stay; None elsewhere."""
        return self.entry.keeps(**self.arguments) if self.entry.keeps else None


def find(name: str) -> ChosenGranularity:
    """Returns the granularity that `name` means, numbers included: "filter", "2:4", "block:4x4".

    Raises:
        PenjingError: there is no such granularity, or its numbers make no sense.
    """
    for entry in granularities.values():
        arguments = entry.read(name) if entry.read else ({} if name == entry.name else None)
        if arguments is not None:
            return ChosenGranularity(name, entry, arguments)
    if name in granularities:
        raise PenjingError(f"granularity='{name}' needs its numbers, as in '{granularities[name].example}'.")
    raise unknown_name("granularity", name, granularities)
