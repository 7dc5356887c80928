"""What the loss gains when some units of one place go, and nothing else: curves of sensitivity."""

import copy
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence.evidence import Evidence
from penjing.evidence.memory import Found, fingerprint_of_tensors, memory_of
from penjing.graph import Graph

Damage = Callable[[Sequence[Sequence[int]]], list[list[float]]]
"""From numbers of units per place to what the loss gains when so many of the weakest go from that place alone."""


class Removable(Protocol):
    """A place whose units can go, such as a group of channels."""

    @property
    def name(self) -> str:
        """What errors call it."""

    @property
    def without(self) -> Callable[[Tensor], dict[str, Tensor]] | None:
        """From which units go, `(units,)`, to the tensors of the graph that are then others, by name."""


def damages(evidence: Evidence, scores: Sequence[Tensor], places: Sequence[Removable]) -> Damage:
    """Returns a function that measures what the loss gains when the weakest units of each place go from it alone.

    It makes one pass over the data for all places, and remembers what it measured. Units go by zeros in the tensors that
    they are part of.

    Args:
        evidence: the graph, and data with labels.
        scores: per place; the lowest go first.
        places: of which each says how its units go.

    Raises:
        PenjingError: (when it is called) there is no labelled data, or a loss isn't a number.
    """
    orders = [score.argsort(stable=True) for score in scores]

    def gone(position: int, count: int) -> dict[str, Tensor]:
        taken = torch.zeros(len(orders[position]), dtype=torch.bool)
        taken[orders[position][:count]] = True
        without = places[position].without
        assert without is not None
        return without(taken)

    @cache
    def measured(counts: tuple[tuple[int, ...], ...]) -> list[list[float]]:
        if memory_of(evidence.data) is None:
            return found(counts)
        goes = fingerprint_of_tensors(gone(i, count) for i, some in enumerate(counts) for count in some)
        about = {"goes": goes, "places": [place.name for place in places]}
        parts = evidence.gather("loss_change", about, map(str, range(len(counts))), lambda _: gains(counts))
        return [part["gains"].tolist() for part in parts.values()]

    def gains(counts: tuple[tuple[int, ...], ...]) -> dict[str, Found]:
        return {str(i): {"gains": torch.tensor(one, dtype=torch.float64)} for i, one in enumerate(found(counts))}

    def found(counts: tuple[tuple[int, ...], ...]) -> list[list[float]]:
        totals = [[0.0] * len(some) for some in counts]
        batches = 0
        model = copy.deepcopy(evidence.graph).eval()
        with torch.no_grad():
            for loss in evidence.judged(model):
                before = float(loss())
                batches += 1
                for position, some in enumerate(counts):
                    for step, count in enumerate(some):
                        totals[position][step] += _with(model, gone(position, count), loss) - before
        for place, one in zip(places, totals, strict=True):
            if not all(map(math.isfinite, one)):
                raise PenjingError(f"On this data the loss is not a finite number where units of {place.name} go.")
        return [[total / max(batches, 1) for total in one] for one in totals]

    return lambda counts: measured(tuple(map(tuple, counts)))


def _with(model: Graph, tensors: dict[str, Tensor], loss: Callable[[], Tensor]) -> float:
    """Returns the loss while some tensors have other values."""
    kept = {name: model.tensor(name).detach().clone() for name in tensors}
    for name, values in tensors.items():
        model.tensor(name).copy_(values)
    found = float(loss())
    for name, values in kept.items():
        model.tensor(name).copy_(values)
    return found
