"""The table of penalties."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from penjing.penalties._structure import Part, structure_of
from penjing.registry import Entry, OwnNumber, Registry, number_in

Penalty = Callable[..., Tensor]
"""A function `(structure)` that returns a scalar with a gradient, before its weight; `(structure, number)` where it has a number
of its own. It must not change the graph."""


@dataclass(frozen=True, kw_only=True)
class PenaltyEntry(Entry[Penalty]):
    """A registered penalty.

    Attributes:
        of: the part of a graph that it looks at.
        weight: the factor that it has in the loss unless the user says otherwise.
        number: the penalty's own number; None where it has none.
    """

    of: Part
    weight: float
    number: OwnNumber | None = None


penalties = Registry("penalty", PenaltyEntry)


@dataclass(frozen=True)
class ChosenPenalty:
    """A penalty as the user typed it.

    Attributes:
        name: the name as typed.
        entry: the registered penalty.
        number: the penalty's own number; None where it has none.
    """

    name: str
    entry: PenaltyEntry
    number: float | None = None

    def of(self, graph: nn.Module) -> Callable[[], Tensor]:
        """Returns a function that gives the penalty of a graph as it is when the function is called.

        Raises:
            PenjingError: it isn't a captured graph, or it has nothing that this penalty shapes.
        """
        structure = structure_of(graph, self.entry.of, self.name)
        own = () if self.number is None else (self.number,)
        return lambda: self.entry.function(structure, *own)


def find(name: str) -> ChosenPenalty:
    """Returns the penalty that a name means, its number included: "subspace", "subspace:0.5".

    Raises:
        PenjingError: there is no such penalty, or its number makes no sense.
    """
    entry = penalties[name.partition(":")[0]]
    return ChosenPenalty(name, entry, number_in("penalty", name, entry.number))
