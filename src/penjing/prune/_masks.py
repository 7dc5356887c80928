"""Single weights go, in rows that a granularity's view shows: shapes stay, zeros and masks that hold them appear."""

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.prune._wanted import Wanted, at_least
from penjing.prune.allocations._registry import Place
from penjing.prune.evidence import Evidence
from penjing.prune.weights import Weight


def without_weights(found: Sequence[Weight], evidence: Evidence, wanted: Wanted) -> Graph:
    """Returns a graph whose weakest rows of weights are zero and stay so in training.

    What earlier masks hold at zero counts as gone, and stays so.

    Raises:
        PenjingError: no weight has such rows, the criterion scores channels only, or scores aren't numbers.
    """
    graph = evidence.graph
    views = {weight: rows_of(graph.tensor(weight.name), weight, wanted) for weight in found}
    rows = {weight: view for weight, view in views.items() if view is not None}
    if not rows:
        raise PenjingError(_nothing_to_prune(views, wanted))
    judged = wanted.saliency(replace(evidence, weights=tuple(weight.name for weight in rows)))
    old = {weight: graph.masks.get(weight.name) for weight in rows}
    scores = [_scored(judged.saliency[weight.name], view, wanted, old[weight], weight) for weight, view in rows.items()]
    kept = _strongest(scores, wanted, [Place(weight.place, tuple(graph.tensor(weight.name).shape)) for weight in rows])
    small, masked = copy.deepcopy(graph), []
    for (weight, view), stays in zip(rows.items(), kept, strict=True):
        mask = torch.zeros(view.numel(), dtype=torch.bool)
        mask[view[stays]] = True
        mask = mask.reshape(graph.tensor(weight.name).shape).to(graph.tensor(weight.name).device)
        if (earlier := old[weight]) is not None:
            mask &= earlier
        if not bool(mask.all()):
            small.masks[weight.name] = mask
            masked.append(weight)
            note = at_least(1) if wanted.granularity.keeps is None and wanted.empties(len(view)) else ""
            small.plan.append(wanted.step(weight.place, mask.numel(), int(mask.sum()), note))
    skipped = [weight for weight, view in views.items() if view is None]
    for weight in skipped:
        size = math.prod(weight.shape)
        small.plan.append(wanted.step(weight.place, size, size, f"; skipped: {_misfit(weight)}"))
    if skipped and wanted.granularity.arguments:  # that a matrix has no kernels is no surprise
        named = ", ".join(weight.place for weight in skipped)
        warnings.warn(f"granularity='{wanted.granularity.name}' does not fit, so these stay: {named}", stacklevel=3)
    if judged.weights is not None:
        with torch.no_grad():
            for name, values in judged.weights({weight.name: small.masks[weight.name] for weight in masked}).items():
                small.tensor(name).copy_(values)
    small.apply_masks()
    return small


def rows_of(tensor: Tensor, weight: Weight, wanted: Wanted) -> Tensor | None:
    """Returns `(rows, members)`, the positions in the flat tensor that stand or fall together, if it has such rows."""
    positions = weight.view(torch.arange(tensor.numel()).reshape(tensor.shape))
    view: Tensor | None = wanted.granularity.entry.function(positions, **wanted.granularity.arguments)
    return view


def _scored(saliency: Tensor, view: Tensor, wanted: Wanted, old: Tensor | None, weight: Weight) -> Tensor:
    score = wanted.finish(saliency.detach().cpu().flatten()[view].sum(1))
    wanted.check(score, [weight.place])
    if old is not None:
        gone = ~old.cpu().flatten()[view].any(1)
        score[gone] = score.min().nextafter(torch.tensor(-math.inf, dtype=score.dtype))
    return score


def _strongest(scores: Sequence[Tensor], wanted: Wanted, places: Sequence[Place]) -> list[Tensor]:
    """Returns, for each weight, which rows stay."""
    keeps = wanted.granularity.keeps
    if keeps is not None:  # n of every m
        n, m = keeps
        ranks = [score.reshape(-1, m).argsort(dim=1, stable=True).argsort(dim=1) for score in scores]
        return [(rank >= m - n).flatten() for rank in ranks]
    kept = wanted.kept(scores, None, places)
    return [score.argsort(stable=True).argsort() >= len(score) - keep for score, keep in zip(scores, kept, strict=True)]


def _misfit(weight: Weight) -> str:
    return f"does not fit {'×'.join(map(str, weight.shape))}"


def _nothing_to_prune(views: dict[Weight, Tensor | None], wanted: Wanted) -> str:
    name = wanted.granularity.name
    if not views:
        return "No weight can be pruned: among the layers that include and exclude leave, none multiplies by a weight."
    misfits = "; ".join(f"{weight.place}: {_misfit(weight)}" for weight in views)
    return f"granularity='{name}' fits no layer of this model ({misfits}). granularity='element' fits all."
