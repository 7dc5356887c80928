"""The verb: criterion × granularity × allocation, then surgery."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Channels, Graph, channels, remove
from penjing.prune.allocations import allocations
from penjing.prune.allocations._registry import Rounding
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
    data: Data | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    batches: int = 16,
    seed: int = 0,
) -> Graph:
    """Returns a smaller graph; the one given stays as it was.

    Args:
        graph: a captured graph.
        amount: share of the units to remove, 0 ≤ amount < 1; per group with the uniform allocation.
        criterion: how much a unit matters, a name in `penjing list criteria`.
        granularity: what stands or falls together, a name in `penjing list granularities`.
        allocation: where how much goes, a name in `penjing list allocations`.
        round_to: keep multiples of this many units (or a function from a wanted to an allowed number); at least one
            step stays, and a group smaller than one step stays whole.
        data: for criteria that need it.
        include: patterns of module paths; only channels made by these are pruned.
        exclude: patterns of module paths whose channels all stay.
        batches: how many batches of data the criterion looks at.
        seed: for criteria that draw random numbers or shuffled data.

    Raises:
        PenjingError: an unknown name, an amount out of range, data that is missing, a model without removable
            channels, or a score that isn't a number.
    """
    if not 0 <= amount < 1:
        raise PenjingError(f"amount is the share of units to remove, 0 ≤ amount < 1, not {amount!r}.")
    if isinstance(round_to, int) and round_to < 1:
        raise PenjingError(f"round_to must be a positive number of units, not {round_to!r}.")
    chosen, allocate = criteria[criterion], allocations[allocation]
    granularities[granularity]
    found = channels(graph, include=include, exclude=exclude)
    if not found.groups:
        raise PenjingError(_nothing_to_prune(found))
    evidence = Evidence(graph, found.groups, data, batches, seed)
    if chosen.needs & {"data", "labels", "gradients"} and data is None:
        raise PenjingError(f"The criterion '{criterion}' needs data: pass data=….")
    scores = _scores(evidence, criterion, granularity)
    kept = allocate.function(scores, amount, round_to)
    units = {
        position: score.argsort(stable=True)[: len(score) - keep].numpy()
        for position, (score, keep) in enumerate(zip(scores, kept, strict=True))
        if keep < len(score)
    }
    small = remove(graph, found, units)
    small.plan += [
        {
            "place": group.name,
            "technique": "prune",
            "setting": f"{granularity}, {criterion}, {allocation}",
            "before": group.units,
            "after": keep,
        }
        for group, keep in zip(found.groups, kept, strict=True)
        if keep < group.units
    ]
    return small


def _scores(evidence: Evidence, criterion: str, granularity: str) -> list[Tensor]:
    entry = criteria[criterion]
    if entry.traits["level"] == "weight":
        finish = entry.traits.get("finish", lambda score: score)
        scores = granularities[granularity].function(evidence, entry.function(evidence), finish)
    else:
        scores = entry.function(evidence)
    for group, score in zip(evidence.groups, scores, strict=True):
        if not bool(torch.isfinite(score).all()):
            raise PenjingError(f"The criterion '{criterion}' gives scores that aren't numbers for {group.name}.")
    return list(scores)


def _nothing_to_prune(found: Channels) -> str:
    ops = Counter(f"{pin.op}{' at ' + pin.source if pin.source else ''}" for pin in found.pinned)
    named = "; ".join(f"{op} ({count} axes)" for op, count in ops.most_common(5))
    return f"No channel of this model can be removed: all are pinned, by {named or 'the lack of any layer'}."
