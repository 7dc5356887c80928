"""Removes channels: whole units of the channel graph, so that tensors shrink."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import Channels, Graph, Group, Option, channels, remove
from penjing.pruning._selection import Selection, lowest
from penjing.pruning.allocations._registry import Rounding, Scored, rounded
from penjing.pruning.granularities._registry import ChosenGranularity


@dataclass(frozen=True)
class Weakest:
    """The units that should go, the weights that make up for them, and the plan's entries.

    Attributes:
        units: the units that should go, the least important first, by their group's position.
        weights: new weights, by name and of the old sizes, that make up for the units that go.
        steps: the plan's entries.
    """

    units: dict[int, np.ndarray]
    weights: dict[str, Tensor]
    steps: list[Option]


def units_of(
    graph: Graph,
    granularity: ChosenGranularity,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    units: str = "auto",
) -> Channels:
    """Returns the channels of a graph, with only those groups that the granularity may remove.

    Raises:
        PenjingError: the granularity has units of its own and other units were asked for, or there is no such group.
    """
    own, among = granularity.entry.units, granularity.entry.among
    if own and units not in ("auto", own):
        raise PenjingError(f"granularity='{granularity.name}' removes {own}, not units='{units}': leave units out.")
    found = channels(graph, include=include, exclude=exclude, units=own or units)
    return replace(found, groups=among(graph, found)) if among else found


def weakest(found: Channels, evidence: Evidence, selection: Selection, rounding: Rounding) -> Weakest:
    """Returns the weakest units of each group. Units that earlier masks hold at zero go first.

    Raises:
        PenjingError: there is no group, or scores aren't numbers.
    """
    if not found.groups:
        raise PenjingError(_nothing_to_prune(found))
    judged = selection.saliency(evidence)
    scores = selection.scores(evidence, judged.saliency)
    scores = [_zeros_lowest(score, evidence, group) for group, score in zip(found.groups, scores, strict=True)]
    places = [
        Scored(group.name, tuple(evidence.graph.tensor(name).shape), partial(_without, evidence.graph, group))
        for group in found.groups
        for name in (group.made_by() or (group.entries[0].tensor,))[:1]
    ]
    damage = selection.damage(evidence, scores, places)
    kept, unrounded = (selection.kept(scores, one, places, damage) for one in (rounding, None))
    units = {
        position: score.argsort(stable=True)[: len(score) - keep].numpy()
        for position, (score, keep) in enumerate(zip(scores, kept, strict=True))
        if keep < len(score)
    }
    steps = []
    for group, keep, plain in zip(found.groups, kept, unrounded, strict=True):
        lifted = plain < keep == rounded(1, group.units, rounding) or (keep == 1 and selection.empties(group.units))
        if lifted or keep < group.units:
            found_here = {"least": keep} if lifted else {}
            steps.append(selection.step("group", group.name, group.units, keep, keep, **found_here))
    return Weakest(units, {} if judged.units is None else judged.units(units), steps)


def without_units(found: Channels, evidence: Evidence, selection: Selection, rounding: Rounding) -> Graph:
    """Returns a graph without the weakest units of each group.

    Raises:
        PenjingError: there is no group, or scores aren't numbers.
    """
    chosen = weakest(found, evidence, selection, rounding)
    small = remove(evidence.graph, found, chosen.units)
    _fill(small, found, chosen.units, chosen.weights)
    small.plan += chosen.steps
    return small


def _without(graph: Graph, group: Group, gone: Tensor) -> dict[str, Tensor]:
    """Returns the parameters that carry these units of a group, with zeros in the units' entries."""
    found: dict[str, Tensor] = {}
    for entry in group.entries:
        values = found.get(entry.tensor, graph.tensor(entry.tensor).detach())
        if isinstance(graph.tensor(entry.tensor), torch.nn.Parameter):
            rows = torch.from_numpy(entry.indices)[gone].flatten().to(values.device)
            found[entry.tensor] = values.index_fill(entry.axis, rows, 0)
    return found


def _zeros_lowest(score: Tensor, evidence: Evidence, group: Group) -> Tensor:
    """Returns scores in which units rank lowest if masks leave no weight of the layers that make them."""
    masks = [(entry, evidence.graph.masks.get(entry.tensor)) for entry in group.entries if entry.role == "out"]
    if not masks or any(mask is None for _, mask in masks):
        return score
    left = torch.stack([evidence.of_units(mask, entry).any(1) for entry, mask in masks if mask is not None]).any(0)
    return lowest(score, ~left)


def _fill(small: Graph, found: Channels, units: Mapping[int, np.ndarray], weights: Mapping[str, Tensor]) -> None:
    """Writes new weights, which still have the old sizes, into the small graph."""
    for name, values in weights.items():
        for axis, size in enumerate(values.shape):
            keep = np.ones(size, bool)
            for position, gone in units.items():
                for entry in found.groups[position].entries:
                    if (entry.tensor, entry.axis) == (name, axis):
                        keep[entry.indices[gone]] = False
            values = values.index_select(axis, torch.from_numpy(np.flatnonzero(keep)).to(values.device))
        with torch.no_grad():
            small.tensor(name).copy_(values)
    small.apply_masks()


def _nothing_to_prune(found: Channels) -> str:
    ops = Counter(f"{pin.op}{' at ' + pin.source if pin.source else ''}" for pin in found.pinned)
    named = "; ".join(f"{op} ({count} axes)" for op, count in ops.most_common(5))
    return f"No channel of this model can be removed: all are pinned, by {named or 'the lack of any layer'}."
