"""The table of penalties."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from penjing.penalties._structure import Part, structure_of
from penjing.registry import Chosen, NumberedEntry, Registry

Penalty = Callable[..., Tensor]
"""A function `(structure)` that returns a scalar with a gradient, before its weight; `(structure, number)` where it has a number
of its own. It must not change the graph."""


@dataclass(frozen=True, kw_only=True)
class PenaltyEntry(NumberedEntry[Penalty]):
    """A registered penalty.

    Attributes:
        of: the part of a graph that it looks at.
        weight: the factor that it has in the loss unless the user says otherwise.
    """

    of: Part
    weight: float


penalties = Registry("penalty", PenaltyEntry)


class ChosenPenalty(Chosen[PenaltyEntry]):
    """A penalty as the user typed it."""

    def of(self, graph: nn.Module) -> Callable[[], Tensor]:
        """Returns a function that gives the penalty of a graph as it is when the function is called.

        Raises:
            PenjingError: it isn't a captured graph, or it has nothing that this penalty shapes.
        """
        structure = structure_of(graph, self.entry.of, self.name)
        own = () if self.entry.number is None else (self.number,)
        return lambda: self.entry.function(structure, *own)


def find(name: str) -> ChosenPenalty:
    """Returns the penalty that a name means, its number included: "subspace", "subspace:0.5".

    Raises:
        PenjingError: there is no such penalty, or its number makes no sense.
    """
    return ChosenPenalty.read("penalty", name, penalties)
