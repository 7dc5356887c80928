"""The units of each group in the order in which they matter, found once for several widths."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import Channels, Graph, Option, Place
from penjing.pruning._prune import selection_of
from penjing.pruning._units import units_of
from penjing.pruning.allocations import at_least
from penjing.pruning.allocations._registry import Rounding, rounded
from penjing.pruning.settings import PruningSettings


@dataclass(frozen=True)
class Ranking:
    """The order of a graph's units.

    Attributes:
        channels: of the graph.
        orders: the units of each group, those that matter most first.
        setting: by which choices they were put in order, as a plan's entry says it.
    """

    channels: Channels
    orders: tuple[np.ndarray, ...]
    setting: dict[str, Any]

    def without(self, counts: Sequence[int]) -> dict[int, np.ndarray]:
        """Returns the units that go where each group keeps so many, the least important first, by the group's position."""
        return {
            place: order[kept:][::-1]
            for place, (order, kept) in enumerate(zip(self.orders, counts, strict=True))
            if kept < len(order)
        }

    def steps(self, counts: Sequence[int]) -> list[Option]:
        """Returns a plan's entries where each group keeps so many units."""
        return [
            Option(Place("group", group.name), "prune", {**self.setting, "keep": kept}, group.units, kept)
            for group, kept in zip(self.channels.groups, counts, strict=True)
            if kept < group.units
        ]


@torch.enable_grad()
def ranking(graph: Graph, data: Data | None, settings: PruningSettings) -> Ranking:
    """Returns the order of the units of all groups by the settings' criterion.

    Raises:
        PenjingError: an unknown name, data that is missing, a graph without channels to remove, or scores that aren't numbers.
    """
    selection = selection_of(graph, data, settings)
    found = units_of(graph, selection.granularity, **settings.where, units=settings.units)
    if not found.groups:
        raise PenjingError(
            "No channel of this model can be removed, so that it can't have several widths: see pj.channels."
        )
    evidence = Evidence(graph, found.groups, data, settings.batches, settings.seed, channels=found)
    scores = selection.scores(evidence, selection.saliency(evidence).saliency)
    orders = tuple(score.argsort(stable=True, descending=True).numpy() for score in scores)
    setting = selection.step("group", "", 0, 0).setting
    return Ranking(found, orders, dict(setting))


def counts_of(share: float, channels: Channels, rounding: Rounding, least: int = 1) -> list[int]:
    """Returns how many units each group keeps of which this share stays.

    Raises:
        PenjingError: the share of a group is less than half a unit; the error names the group.
    """
    counts = []
    for group in channels.groups:
        kept = math.floor(share * group.units + 0.5)
        if kept < 1:
            raise PenjingError(
                f"A share of {share:.3g} keeps none of the {group.units} channels of {group.name}: take a share of "
                f"{0.5 / group.units:.3g} or more, or leave that module out with exclude=…."
            )
        counts.append(rounded(kept, group.units, at_least(least, rounding)))
    return counts
