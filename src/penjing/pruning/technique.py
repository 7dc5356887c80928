"""Pruning as a planner sees it: the same share of every group's channels goes, in multiples that suit the target's kernels."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import torch

from penjing.capabilities import Capabilities
from penjing.data import Data
from penjing.graph import Graph, Option, Place, channels
from penjing.pruning._again import prune_again
from penjing.pruning.allocations import allocations
from penjing.pruning.allocations._registry import at_least
from penjing.pruning.criteria import criteria
from penjing.techniques import Scope, Stage, Technique, techniques

AMOUNTS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)  # shares of the units that go, before rounding
BATCHES = 16  # batches of data that the criterion looks at


@techniques.register(
    source="Li et al., Pruning Filters for Efficient ConvNets, 2017; He & Xiao, 2023 (a survey)", name="prune"
)
class Pruning(Technique):
    """Removes the same share of every group's channels; what is left is a smaller network of the same kind."""

    stage: ClassVar[Stage] = "structure"
    per_place = frozenset({"keep"})

    def __init__(self, criterion: str = "l2", batches: int = BATCHES, seed: int = 0) -> None:
        """Takes the criterion by which channels go, how many batches it looks at, and its seed.

        Raises:
            PenjingError: the criterion is unknown.
        """
        criteria[criterion]
        self._criterion, self._batches, self._seed = criterion, batches, seed

    def propose(self, graph: Graph, data: Data | None, capabilities: Capabilities, scope: Scope) -> Iterator[Option]:
        """Yields the options of one set of widths after another, by falling number of parameters, without duplicates.

        A target's kernels are fast at channel counts that fill their vector registers. Other counts take longer than their
        share of the work, and sometimes longer than the next multiple above.
        """
        groups = channels(graph, include=scope.include, exclude=scope.exclude, units=scope.units).groups
        whole = tuple(group.units for group in groups)
        uniform = allocations["uniform"].function
        widths: dict[tuple[int, ...], tuple[float, int]] = {}
        for step in capabilities.channel_multiples:
            for amount in AMOUNTS:
                rounding = at_least(scope.min_channels, step)
                kept = tuple(uniform([torch.zeros(n) for n in whole], amount, rounding))
                widths.setdefault(kept, (amount, step))
        widths.pop(whole, None)
        total = sum(group.units * group.params for group in groups)

        def share(kept: tuple[int, ...]) -> float:
            """Returns the share of all groups' parameters that stays."""
            return sum(k * group.params for k, group in zip(kept, groups, strict=True)) / total

        for kept in sorted(widths, key=lambda kept: -share(kept)):
            amount, step = widths[kept]
            for group, keep in zip(groups, kept, strict=True):
                if keep < group.units:
                    setting = {
                        "granularity": "filter",
                        "criterion": self._criterion,
                        "allocation": "uniform",
                        "keep": keep,
                        "include": list(scope.include),
                        "exclude": list(scope.exclude),
                        "batches": self._batches,
                        "seed": self._seed,
                        "units": scope.units,
                        "amount": amount,
                        "round_to": step,
                    }
                    found = {"saves_params": (group.units - keep) * group.params}
                    yield Option(Place("group", group.name), "prune", setting, group.units, keep, found)

    def apply(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
        """Returns a graph without the channels, branches and weights that the options take."""
        return prune_again(graph, options, data)

    def draft(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
        """Prunes as many channels, chosen by the weights alone: which channels go doesn't change the latency."""
        return prune_again(graph, [replace(one, setting={**one.setting, "criterion": "l2"}) for one in options], None)
