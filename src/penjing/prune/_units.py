"""Channels go: whole units of the channel graph, and tensors shrink."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.graph import Channels, Graph, remove
from penjing.prune._wanted import Wanted, at_least
from penjing.prune.allocations._registry import Place, Rounding, rounded
from penjing.prune.evidence import Evidence


def without_units(found: Channels, evidence: Evidence, wanted: Wanted, rounding: Rounding) -> Graph:
    """Returns a graph without the weakest units of each group.

    Raises:
        PenjingError: there is no group, or scores aren't numbers.
    """
    if not found.groups:
        raise PenjingError(_nothing_to_prune(found))
    judged = wanted.saliency(evidence)
    scores = wanted.scores(evidence, judged.saliency)
    places = [
        Place(group.name, tuple(evidence.graph.tensor(name).shape))
        for group in found.groups
        for name in (group.made_by() or (group.entries[0].tensor,))[:1]
    ]
    kept, unrounded = wanted.kept(scores, rounding, places), wanted.kept(scores, None, places)
    units = {
        position: score.argsort(stable=True)[: len(score) - keep].numpy()
        for position, (score, keep) in enumerate(zip(scores, kept, strict=True))
        if keep < len(score)
    }
    small = remove(evidence.graph, found, units)
    if judged.units is not None:
        _fill(small, found, units, judged.units(units))
    for group, keep, plain in zip(found.groups, kept, unrounded, strict=True):
        lifted = plain < keep == rounded(1, group.units, rounding) or (keep == 1 and wanted.empties(group.units))
        if lifted or keep < group.units:
            small.plan.append(wanted.step(group.name, group.units, keep, at_least(keep) if lifted else ""))
    return small


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
