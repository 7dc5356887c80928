"""The verb: criterion × granularity × allocation, then surgery."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Branch, Channels, Graph, branches, channels, remove, remove_branches
from penjing.prune.allocations import allocations
from penjing.prune.allocations._registry import Rounding, at_least, rounded
from penjing.prune.criteria import criteria
from penjing.prune.evidence import Evidence
from penjing.prune.granularities import granularities


def prune(
    graph: Graph,
    amount: float,
    *,
    criterion: str = "l2",
    granularity: str = "filter",
    allocation: str = "uniform",
    round_to: Rounding = None,
    min_channels: int = 1,
    units: str = "auto",
    data: Data | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    batches: int = 16,
    seed: int = 0,
) -> Graph:
    """Returns a smaller graph; the one given stays as it was. The shapes of its outputs stay, too.

    Args:
        graph: a captured graph.
        amount: share of the units to remove, 0 ≤ amount < 1; per group with the uniform allocation. With
            `granularity="layer"`, share of the residual branches.
        criterion: how much a unit matters, a name in `penjing list criteria`.
        granularity: what stands or falls together, a name in `penjing list granularities`.
        allocation: where how much goes, a name in `penjing list allocations`.
        round_to: keep multiples of this many units (or a function from a wanted to an allowed number); at least one
            step stays, and a group smaller than one step stays whole.
        min_channels: how many units each group keeps at least; a smaller group stays whole.
        units: what a unit of attention is, "heads", "features" or "auto"; see `channels`.
        data: for criteria that need it.
        include: patterns of module paths; only what these make is pruned.
        exclude: patterns of module paths whose channels, and whose layers, all stay.
        batches: how many batches of data the criterion looks at.
        seed: for criteria that draw random numbers or shuffled data.

    Returns:
        The smaller graph. Its `plan` tells what went, and where more would have gone had not the last units to stay.

    Raises:
        PenjingError: an unknown name, an amount out of range, data that is missing, a model in which nothing can be
            removed, or a score that isn't a number.
    """
    if not 0 <= amount < 1:
        raise PenjingError(f"amount is the share of units to remove, 0 ≤ amount < 1, not {amount!r}.")
    if isinstance(round_to, int) and round_to < 1:
        raise PenjingError(f"round_to must be a positive number of units, not {round_to!r}.")
    if min_channels < 1:
        raise PenjingError(f"min_channels must be a positive number of units, not {min_channels!r}.")
    chosen, _ = criteria[criterion], allocations[allocation]
    if chosen.needs & {"data", "labels", "gradients"} and data is None:
        raise PenjingError(f"The criterion '{criterion}' needs data: pass data=….")
    wanted = _Wanted(amount, criterion, granularity, allocation)
    if granularities[granularity].traits["removes"] == "branches":
        if round_to is not None or min_channels != 1 or units != "auto":
            raise PenjingError(
                f"round_to, min_channels and units speak of channels, and granularity='{granularity}' removes whole "
                "branches: leave them out."
            )
        left = branches(graph, include=include, exclude=exclude)
        return _without_branches(Evidence(graph, (), data, batches, seed, left), wanted)
    found = channels(graph, include=include, exclude=exclude, units=units)
    return _without_units(found, Evidence(graph, found.groups, data, batches, seed), wanted, round_to, min_channels)


@dataclass(frozen=True)
class _Wanted:
    """How much should go, and by which choices."""

    amount: float
    criterion: str
    granularity: str
    allocation: str

    def kept(self, scores: Sequence[Tensor], rounding: Rounding) -> list[int]:
        return allocations[self.allocation].function(scores, self.amount, rounding)

    def scores(self, evidence: Evidence) -> list[Tensor]:
        return _scores(evidence, self.criterion, self.granularity)

    def empties(self, units: int) -> bool:
        """Tells whether the amount, spread evenly, would leave nothing of this many units."""
        return math.floor(self.amount * units + 0.5) >= units

    def step(self, place: str, before: int, after: int, note: str = "") -> dict[str, Any]:
        """Returns the record of what happened in one place."""
        setting = f"{self.granularity}, {self.criterion}, {self.allocation}{note}"
        return {"place": place, "technique": "prune", "setting": setting, "before": before, "after": after}


def _without_units(
    found: Channels, evidence: Evidence, wanted: _Wanted, round_to: Rounding, min_channels: int
) -> Graph:
    if not found.groups:
        raise PenjingError(_nothing_to_prune(found))
    rounding = at_least(min_channels, round_to)
    scores = wanted.scores(evidence)
    kept, unrounded = wanted.kept(scores, rounding), wanted.kept(scores, None)
    units = {
        position: score.argsort(stable=True)[: len(score) - keep].numpy()
        for position, (score, keep) in enumerate(zip(scores, kept, strict=True))
        if keep < len(score)
    }
    small = remove(evidence.graph, found, units)
    for group, keep, plain in zip(found.groups, kept, unrounded, strict=True):
        lifted = plain < keep == rounded(1, group.units, rounding) or (keep == 1 and wanted.empties(group.units))
        if lifted or keep < group.units:
            small.plan.append(wanted.step(group.name, group.units, keep, _at_least(keep) if lifted else ""))
    return small


def _without_branches(evidence: Evidence, wanted: _Wanted) -> Graph:
    found = evidence.branches
    if not found:
        raise PenjingError(
            "No residual branch can be removed: among the layers that include and exclude leave, nothing is added to a "
            "value of the same shape that it was computed from. granularity='filter' needs none."
        )
    if criteria[wanted.criterion].traits["level"] != "weight":
        able = ", ".join(sorted(name for name, entry in criteria.items() if entry.traits["level"] == "weight"))
        raise PenjingError(
            f"The criterion '{wanted.criterion}' scores single channels, not whole branches; "
            f"granularity='{wanted.granularity}' works with {able}."
        )
    (score,) = wanted.scores(evidence)
    (kept,) = wanted.kept([score], None)
    gone = _weakest(found, score, len(found) - kept)
    small = remove_branches(evidence.graph, gone)
    note = _at_least(kept) if wanted.empties(len(found)) else ""
    small.plan += [wanted.step(branch.name, 1, 0, note) for branch in gone]
    if note and not gone:
        small.plan.append(wanted.step(found[0].name, 1, 1, note))
    return small


def _weakest(found: Sequence[Branch], score: Tensor, count: int) -> list[Branch]:
    """Returns the `count` lowest branches; what lies within one of them goes, and counts, with it."""
    nodes = [frozenset(branch.nodes) for branch in found]
    with_it = [{i} | {j for j, one in enumerate(found) if one.addition in inner} for i, inner in enumerate(nodes)]
    order = score.argsort(stable=True).tolist()
    gone: set[int] = set()
    while len(gone) < count:  # ends: a branch all of whose inner ones went adds but itself
        gone |= next(with_it[i] for i in order if i not in gone and len(gone | with_it[i]) <= count)
    return [found[i] for i in sorted(gone)]


def _at_least(kept: int) -> str:
    return f"; at least {kept} stay{'s' if kept == 1 else ''}"


def _scores(evidence: Evidence, criterion: str, granularity: str) -> list[Tensor]:
    entry = criteria[criterion]
    if entry.traits["level"] == "weight":
        finish = entry.traits.get("finish", lambda score: score)
        scores = granularities[granularity].function(evidence, entry.function(evidence), finish)
    else:
        scores = entry.function(evidence)
    places = [[group.name] * group.units for group in evidence.groups] or [[one.name for one in evidence.branches]]
    for names, score in zip(places, scores, strict=True):
        if not bool(torch.isfinite(score).all()):
            name = names[int((~torch.isfinite(score)).nonzero()[0])]
            raise PenjingError(f"The criterion '{criterion}' gives scores that aren't numbers for {name}.")
    return list(scores)


def _nothing_to_prune(found: Channels) -> str:
    ops = Counter(f"{pin.op}{' at ' + pin.source if pin.source else ''}" for pin in found.pinned)
    named = "; ".join(f"{op} ({count} axes)" for op, count in ops.most_common(5))
    return f"No channel of this model can be removed: all are pinned, by {named or 'the lack of any layer'}."
