"""What a schedule holds at zero for a while, as masks on parameters: single weights, or all that makes a channel."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from penjing.graph import Channels, Entry, Graph, Group, remove
from penjing.prune._masks import without_weights
from penjing.prune._units import weakest
from penjing.prune._wanted import Wanted
from penjing.prune.allocations._registry import Rounding
from penjing.prune.evidence import Evidence
from penjing.prune.weights import Weight

Masks = dict[str, Tensor]
"""By parameter name; False is gone. Parameters that keep everything need not be there."""


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
    steps: list[dict[str, Any]]


class Held(Protocol):
    """What stands or falls together, seen as masks."""

    def decide(self, evidence: Evidence, wanted: Wanted) -> Decision:
        """Returns what should go of the evidence's graph, which stays as it is."""

    def gone(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns, for each place of the plan, which of its weights or units the masks take, `(units,)`."""

    def drawn(self, masks: Mapping[str, Tensor], probability: float, generator: torch.Generator) -> Masks:
        """Returns masks that take some of what these take, each with this probability."""

    def finish(self, graph: Graph) -> Graph:
        """Returns what becomes of a graph whose masks are final."""


@dataclass(frozen=True)
class HeldWeights:
    """Single weights: the masks stay."""

    found: tuple[Weight, ...]

    def decide(self, evidence: Evidence, wanted: Wanted) -> Decision:
        graph = evidence.graph
        known = replace(evidence, weights=tuple(weight.name for weight in self.found))
        small = without_weights(self.found, known, wanted)
        weights = {name: small.tensor(name).detach() for name in small.masks}
        return Decision(small.masks, weights, small.plan[len(graph.plan) :])

    def gone(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        places = {weight.name: weight.place for weight in self.found}
        return {places[name]: ~mask.flatten() for name, mask in masks.items() if name in places}

    def drawn(self, masks: Mapping[str, Tensor], probability: float, generator: torch.Generator) -> Masks:
        return {
            name: mask | (torch.rand(mask.shape, generator=generator) >= probability).to(mask.device)
            for name, mask in masks.items()
        }

    def finish(self, graph: Graph) -> Graph:
        return graph


@dataclass(frozen=True)
class HeldUnits:
    """Channels: what makes them is held at zero, weights, biases, scales and shifts, and what reads them is left alone.

    So a channel that is gone is exactly zero wherever it is read, and taking it out changes nothing, but for norms over
    channels, which then see fewer of them. At the end surgery takes it out.
    """

    channels: Channels
    rounding: Rounding

    def decide(self, evidence: Evidence, wanted: Wanted) -> Decision:
        known = replace(evidence, groups=self.channels.groups, channels=self.channels)
        chosen = weakest(self.channels, known, wanted, self.rounding)
        masks = {name: mask.clone() for name, mask in evidence.graph.masks.items()}
        for position, units in chosen.units.items():
            gone = torch.zeros(self.channels.groups[position].units, dtype=torch.bool)
            gone[torch.from_numpy(units)] = True
            self._take(masks, evidence.graph, position, gone)
        return Decision(masks, chosen.weights, chosen.steps)

    def gone(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {group.name: self._gone(masks, group) for group in self.channels.groups}

    def drawn(self, masks: Mapping[str, Tensor], probability: float, generator: torch.Generator) -> Masks:
        found: Masks = {name: torch.ones_like(mask) for name, mask in masks.items()}
        for position, group in enumerate(self.channels.groups):
            gone = self._gone(masks, group)
            gone &= torch.rand(gone.shape, generator=generator) < probability
            self._take(found, None, position, gone)
        return found

    def finish(self, graph: Graph) -> Graph:
        units = {
            position: gone.nonzero().flatten().numpy()
            for position, group in enumerate(self.channels.groups)
            if bool((gone := self._gone(graph.masks, group)).any())
        }
        return remove(graph, self.channels, units)

    def _take(self, masks: Masks, graph: Graph | None, position: int, gone: Tensor) -> None:
        """Takes units out of masks, in all that makes them."""
        for entry in _makers(self.channels.groups[position]):
            if graph is not None and isinstance(tensor := graph.tensor(entry.tensor), torch.nn.Parameter):
                masks.setdefault(entry.tensor, torch.ones_like(tensor, dtype=torch.bool))
            if entry.tensor in masks:
                mask = masks[entry.tensor]
                rows = torch.from_numpy(entry.indices)[gone].flatten().to(mask.device)
                masks[entry.tensor] = mask.index_fill(entry.axis, rows, False)

    def _gone(self, masks: Mapping[str, Tensor], group: Group) -> Tensor:
        """Returns which units the masks take from all that makes them, `(units,)`."""
        made = [entry for entry in _makers(group) if entry.tensor in masks]
        if not made:
            return torch.zeros(group.units, dtype=torch.bool)
        left = []
        for entry in made:
            rows = masks[entry.tensor].movedim(entry.axis, 0)
            left.append(rows.reshape(len(rows), -1).any(1).cpu()[torch.from_numpy(entry.indices)].any(1))
        return ~torch.stack(left).any(0)


def _makers(group: Group) -> list[Entry]:
    return [entry for entry in group.entries if entry.role not in ("in", "statistic")]
