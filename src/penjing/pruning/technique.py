"""Pruning as a planner sees it: the same share of every group's channels goes, in multiples that suit the target's kernels."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from penjing.capabilities import Capabilities
from penjing.data import Data
from penjing.graph import Graph, Group, Option, Place, branches, channels
from penjing.pruning._again import prune_again
from penjing.pruning.allocations import allocations
from penjing.pruning.allocations._registry import at_least
from penjing.pruning.criteria import criteria
from penjing.techniques import Scope, Stage, Technique, techniques

AMOUNTS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)  # shares of the units that go, before rounding
BATCHES = 16  # batches of data that the criterion looks at
WIDTHS = 8  # widths at most among which a solver chooses for one group


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
        groups = channels(graph, include=scope.include, exclude=scope.unpruned, units=scope.units).groups
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
                        "exclude": list(scope.unpruned),
                        "batches": self._batches,
                        "seed": self._seed,
                        "units": scope.units,
                        "amount": amount,
                        "round_to": step,
                    }
                    found = {"saves_params": (group.units - keep) * group.params}
                    yield Option(Place("group", group.name), "prune", setting, group.units, keep, found)

    def choices(self, graph: Graph, data: Data | None, capabilities: Capabilities, scope: Scope) -> Iterator[Option]:
        """Yields the widths that each group of channels could have, and the residual branches that could go.

        Widths are multiples of the smallest number of channels that suits the target's kernels, `WIDTHS` of them at most; a
        group too small for these can lose half of its channels. Branches of a group that `min_channels` keeps whole stay.
        """
        setting = {
            "criterion": self._criterion,
            "allocation": "plan",
            "include": list(scope.include),
            "exclude": list(scope.unpruned),
            "batches": self._batches,
            "seed": self._seed,
        }
        for branch in branches(graph, include=scope.include, exclude=scope.unremoved):
            removal = {**setting, "exclude": list(scope.unremoved), "granularity": "layer", "keep": 0}
            yield Option(Place("branch", branch.name), "prune", removal, 1, 0, {"saves_params": branch.params})
        step = min(capabilities.channel_multiples)
        for group in channels(graph, include=scope.include, exclude=scope.unpruned, units=scope.units).groups:
            for keep in _widths(group.units, step, scope.min_channels):
                width = {**setting, "granularity": "filter", "keep": keep, "units": scope.units}
                found = {"saves_params": (group.units - keep) * group.params}
                yield Option(Place("group", group.name), "prune", width, group.units, keep, found)

    def settled(self, graph: Graph, options: Sequence[Option]) -> list[Option]:
        """Returns the removals of branches, then the widths of the groups that are left, by the names that these have then.

        A group is called after the first layer that makes its channels. If that layer goes with its branch, the group is
        called after the next one.
        """
        removals = [one for one in options if one.place.kind == "branch"]
        widths = [one for one in options if one.place.kind == "group"]
        if not removals or not widths:
            return [*removals, *widths]
        before, after = (channels(one, **_where(widths[0])) for one in (graph, self.draft(graph, removals, None)))
        now = {entry: group.name for group in after.groups for entry in _axes(group)}
        names = {group.name: next((now[a] for a in _axes(group) if a in now), None) for group in before.groups}
        renamed = []
        for one in widths:
            name = names[one.place.path]
            if name is not None:  # otherwise the group has gone with its branches
                renamed.append(replace(one, place=Place("group", name)))
        return [*removals, *renamed]

    def apply(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
        """Returns a graph without the channels, branches and weights that the options take."""
        return prune_again(graph, options, data)

    def draft(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
        """Prunes as many channels, chosen by the weights alone: which channels go doesn't change the latency."""
        return prune_again(graph, [replace(one, setting={**one.setting, "criterion": "l2"}) for one in options], None)


def _widths(units: int, step: int, least: int) -> list[int]:
    """Returns the numbers of units that a group could keep, the widest first."""
    multiples = [keep for keep in range(step, units, step) if keep >= least]
    if len(multiples) > WIDTHS:
        spread = np.linspace(0, len(multiples) - 1, WIDTHS).round().astype(int)
        multiples = [multiples[at] for at in dict.fromkeys(spread.tolist())]
    half = units // 2
    return multiples[::-1] if multiples or half < max(1, least) else [half]


def _where(option: Option) -> dict[str, Any]:
    """Returns the arguments of `channels` in an option's setting."""
    return {name: option.setting[name] for name in ("include", "exclude", "units")}


def _axes(group: Group) -> list[tuple[str, int]]:
    return [(entry.tensor, entry.axis) for entry in group.entries]
