"""Counts the zeros that pruning left in weights of unchanged shape, and names the granularities that made them."""

from dataclasses import dataclass

from penjing.errors import PenjingError
from penjing.graph import Graph, Option
from penjing.graph.weights import place_of
from penjing.pruning.granularities._registry import ChosenGranularity, find


@dataclass(frozen=True)
class MaskedZeros:
    """The zeros that a mask holds in one weight.

    Attributes:
        place: path of the weight, as in the plan.
        granularities: the granularities by which the zeros came, as the plan says; empty if it doesn't.
        weights: number of the weight's entries.
        zeros: number of entries that are masked.
    """

    place: str
    granularities: tuple[ChosenGranularity, ...]
    weights: int
    zeros: int


def zeros(graph: Graph) -> tuple[MaskedZeros, ...]:
    """Returns the zeros that the masks of a graph hold, weight by weight."""
    came_by: dict[str, dict[str, ChosenGranularity]] = {}
    for step in graph.plan:
        granularity = _granularity(step)
        if granularity is not None and granularity.removes == "weights":
            came_by.setdefault(step.place.path, {})[granularity.name] = granularity
    return tuple(
        MaskedZeros(place_of(name), tuple(came_by.get(place_of(name), {}).values()), mask.numel(), int((~mask).sum()))
        for name, mask in graph.masks.items()
    )


def _granularity(step: Option) -> ChosenGranularity | None:
    """Returns the granularity by which a step of the plan set weights to zero."""
    if step.technique != "prune":
        return None
    try:
        return find(str(step.setting.get("granularity")))
    except PenjingError:  # a plan may come from elsewhere, with a granularity that isn't registered here
        return None
