"""Weights and channels that a schedule holds at zero for a while: masks zero single weights, or all that make a channel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.graph import AxisEntry, Channels, Graph, Group, Option, remove
from penjing.graph.weights import Weight
from penjing.pruning._hidden_weights import Masks
from penjing.pruning._masks import shrunk, without_weights
from penjing.pruning._selection import Selection
from penjing.pruning._units import weakest
from penjing.pruning.allocations._registry import Rounding


@dataclass(frozen=True)
class Decision:
    """Which weights or channels should go.

    Attributes:
        masks: False for weights that should be zero, including those that earlier masks hold at zero.
        weights: new weights, by name, that make up for those that go.
        steps: the plan's entries.
    """

    masks: Masks
    weights: dict[str, Tensor]
    steps: Sequence[Option]


class Zeroed(Protocol):
    """The weights or channels that a schedule may hold at zero, by masks."""

    def decide(self, evidence: Evidence, selection: Selection) -> Decision:
        """Decides which weights or channels of the evidence's graph should go; the graph stays as it is."""

    def returned(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, int]:
        """Returns how many weights or units of each place earlier masks prune and later masks don't."""

    def drawn(self, masks: Mapping[str, Tensor], probability: float, generator: torch.Generator) -> Masks:
        """Returns masks that prune each of the weights or units that `masks` prune with this probability."""

    def groups(self) -> tuple[Group, ...]:
        """Returns the groups of the channels that may go; none where single weights go."""

    def finish(self, graph: Graph) -> Graph:
        """Returns the pruned graph once its masks are final, made smaller where that is possible."""


@dataclass(frozen=True)
class ZeroedWeights:
    """Single weights. Their masks stay in the graph, except where the granularity makes kernels smaller."""

    found: tuple[Weight, ...]
    selection: Selection

    def decide(self, evidence: Evidence, selection: Selection) -> Decision:
        graph = evidence.graph
        known = replace(evidence, weights=tuple(weight.name for weight in self.found))
        small = without_weights(self.found, known, selection)
        weights = {name: small.tensor(name).detach() for name in small.masks}
        return Decision(small.masks, weights, small.plan.options[len(graph.plan) :])

    def returned(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, int]:
        places = {weight.name: weight.place for weight in self.found}
        return {
            places[name]: int((~mask & after[name].to(mask.device) if name in after else ~mask).sum())
            for name, mask in before.items()
            if name in places
        }

    def drawn(self, masks: Mapping[str, Tensor], probability: float, generator: torch.Generator) -> Masks:
        return {
            name: mask | (torch.rand(mask.shape, generator=generator) >= probability).to(mask.device)
            for name, mask in masks.items()
        }

    def groups(self) -> tuple[Group, ...]:
        return ()

    def finish(self, graph: Graph) -> Graph:
        return shrunk(graph, self.selection, self.found)


@dataclass(frozen=True)
class ZeroedChannels:
    """Channels. Masks zero the parameters that make a channel and leave those that read it; at the end surgery removes it.

    A channel's weights, biases, scales, shifts and running statistics are all zero, so that the channel is zero wherever it
    is read. Its removal changes no output, except through norms over channels, which then see fewer of them.
    """

    channels: Channels
    rounding: Rounding

    def decide(self, evidence: Evidence, selection: Selection) -> Decision:
        known = replace(evidence, groups=self.channels.groups, channels=self.channels)
        chosen = weakest(self.channels, known, selection, self.rounding)
        masks = {name: mask.clone() for name, mask in evidence.graph.masks.items()}
        for position, units in chosen.units.items():
            group = self.channels.groups[position]
            gone = torch.zeros(group.units, dtype=torch.bool)
            gone[torch.from_numpy(units)] = True
            for entry in _makers(group):
                masks.setdefault(entry.tensor, torch.ones_like(evidence.graph.tensor(entry.tensor), dtype=torch.bool))
            _take(masks, group, gone)
        return Decision(masks, chosen.weights, chosen.steps)

    def returned(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, int]:
        return {g.name: int((_gone(before, g) & ~_gone(after, g)).sum()) for g in self.channels.groups}

    def drawn(self, masks: Mapping[str, Tensor], probability: float, generator: torch.Generator) -> Masks:
        found: Masks = {name: torch.ones_like(mask) for name, mask in masks.items()}
        for group in self.channels.groups:
            _take(found, group, _gone(masks, group) & (torch.rand(group.units, generator=generator) < probability))
        return found

    def groups(self) -> tuple[Group, ...]:
        return self.channels.groups

    def finish(self, graph: Graph) -> Graph:
        gone = {position: _gone(graph.masks, group) for position, group in enumerate(self.channels.groups)}
        units = {position: one.nonzero().flatten().numpy() for position, one in gone.items() if bool(one.any())}
        return remove(graph, self.channels, units)


def _makers(group: Group) -> list[AxisEntry]:
    return [entry for entry in group.entries if entry.role != "in"]


def _take(masks: Masks, group: Group, gone: Tensor) -> None:
    """Sets masks to False at the entries of all parameters that make these units."""
    for entry in _makers(group) if bool(gone.any()) else ():
        mask = masks[entry.tensor]
        rows = torch.from_numpy(entry.indices)[gone].flatten().to(mask.device)
        masks[entry.tensor] = mask.index_fill(entry.axis, rows, False)


def _gone(masks: Mapping[str, Tensor], group: Group) -> Tensor:
    """Returns which units masks prune in all parameters that make them, as booleans `(units,)`."""
    left = torch.zeros(group.units, dtype=torch.bool)
    for entry in _makers(group):
        if entry.tensor not in masks:
            return torch.zeros(group.units, dtype=torch.bool)
        rows = masks[entry.tensor].movedim(entry.axis, 0)
        left |= rows.reshape(len(rows), -1).any(1).cpu()[torch.from_numpy(entry.indices)].any(1)
    return ~left
