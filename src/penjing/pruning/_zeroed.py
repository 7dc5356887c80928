"""What a schedule holds at zero for a while, by masks: single weights, or all weights that make a channel."""

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
    """What should go.

    Attributes:
        masks: what stays, with what went before.
        weights: new weights, by name, that make up for what goes.
        steps: what the plan says of it.
    """

    masks: Masks
    weights: dict[str, Tensor]
    steps: Sequence[Option]


class Zeroed(Protocol):
    """The weights or channels that a schedule may hold at zero, by masks."""

    def decide(self, evidence: Evidence, selection: Selection) -> Decision:
        """Returns what should go of the evidence's graph, which stays as it is."""

    def returned(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, int]:
        """Returns, for each place of the plan, how many weights or units earlier masks take and later ones don't."""

    def drawn(self, masks: Mapping[str, Tensor], probability: float, generator: torch.Generator) -> Masks:
        """Returns masks that take some of what these take, each with this probability."""

    def scales(self) -> list[str]:
        """Returns the names of the scales of norms behind the channels that may go."""

    def finish(self, graph: Graph) -> Graph:
        """Returns what becomes of a graph whose masks are final."""


@dataclass(frozen=True)
class ZeroedWeights:
    """Single weights: the masks stay, but where the granularity makes kernels smaller."""

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

    def scales(self) -> list[str]:
        return []

    def finish(self, graph: Graph) -> Graph:
        return shrunk(graph, self.selection, self.found)


@dataclass(frozen=True)
class ZeroedChannels:
    """Channels: all that makes them is held at zero, and what reads them is left alone. At the end surgery takes them out.

    Weights, biases, scales, shifts and running statistics of a channel are zero, and so is the channel wherever it is
    read. Taking it out changes nothing, but for norms over channels, which then see fewer of them.
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

    def scales(self) -> list[str]:
        entries = (entry for group in self.channels.groups for entry in group.entries)
        return list(dict.fromkeys(entry.tensor for entry in entries if entry.role == "scale"))

    def finish(self, graph: Graph) -> Graph:
        gone = {position: _gone(graph.masks, group) for position, group in enumerate(self.channels.groups)}
        units = {position: one.nonzero().flatten().numpy() for position, one in gone.items() if bool(one.any())}
        return remove(graph, self.channels, units)


def _makers(group: Group) -> list[AxisEntry]:
    return [entry for entry in group.entries if entry.role != "in"]


def _take(masks: Masks, group: Group, gone: Tensor) -> None:
    """Takes units out of masks, wherever something makes them."""
    for entry in _makers(group) if bool(gone.any()) else ():
        mask = masks[entry.tensor]
        rows = torch.from_numpy(entry.indices)[gone].flatten().to(mask.device)
        masks[entry.tensor] = mask.index_fill(entry.axis, rows, False)


def _gone(masks: Mapping[str, Tensor], group: Group) -> Tensor:
    """Returns which units masks take from all that makes them, `(units,)`."""
    left = torch.zeros(group.units, dtype=torch.bool)
    for entry in _makers(group):
        if entry.tensor not in masks:
            return torch.zeros(group.units, dtype=torch.bool)
        rows = masks[entry.tensor].movedim(entry.axis, 0)
        left |= rows.reshape(len(rows), -1).any(1).cpu()[torch.from_numpy(entry.indices)].any(1)
    return ~left
