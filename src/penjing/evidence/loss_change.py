"""Sensitivity curves: how much the loss grows when units of one place, and no others, are removed."""

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
"""A function from numbers of units, per place, to the loss's increase when that many of the weakest units of this place
alone are removed."""


class Removable(Protocol):
    """A place whose units can be removed, such as a group of channels."""

    @property
    def name(self) -> str:
        """The place's name in errors."""

    @property
    def without(self) -> Callable[[Tensor], dict[str, Tensor]] | None:
        """A function from the units to remove, a mask `(units,)`, to the changed tensors of the graph by name."""


def damages(evidence: Evidence, scores: Sequence[Tensor], places: Sequence[Removable]) -> Damage:
    """Returns a function that measures how much the loss grows when the weakest units of one place alone are removed.

    The function makes one pass over the data for all places and caches its results. Units are removed by zeros in the
    tensors to which they belong.

    Args:
        evidence: the graph, and data with labels.
        scores: `(units,)` for each place; the units with the lowest scores go first.
        places: the places, each of which tells how its units are removed.

    Raises:
        PenjingError: (when the function is called) there is no labelled data, or a loss isn't a finite number.
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
    """Returns the loss with the values of some tensors replaced."""
    kept = {name: model.tensor(name).detach().clone() for name in tensors}
    for name, values in tensors.items():
        model.tensor(name).copy_(values)
    found = float(loss())
    for name, values in kept.items():
        model.tensor(name).copy_(values)
    return found
