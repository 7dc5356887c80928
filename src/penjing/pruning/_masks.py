"""Prunes weights in rows that a granularity says stand or fall together: shapes stay, and masks hold the weights at zero."""

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import Graph, Option
from penjing.graph.weights import Weight
from penjing.pruning._selection import Selection, lowest
from penjing.pruning.allocations._registry import Scored


def without_weights(found: Sequence[Weight], evidence: Evidence, selection: Selection) -> Graph:
    """Returns a graph whose weakest rows of weights are zero and stay so in training.

    Weights that earlier masks hold at zero count as pruned, and stay zero.

    Raises:
        PenjingError: no weight has such rows, the criterion scores channels only, or scores aren't numbers.
    """
    graph = evidence.graph
    views = {weight: rows_of(graph.tensor(weight.name), weight, selection) for weight in found}
    rows = {weight: view for weight, view in views.items() if view is not None}
    if not rows:
        raise PenjingError(_nothing_to_prune(views, selection))
    judged = selection.saliency(replace(evidence, weights=tuple(weight.name for weight in rows)))
    old = {weight: graph.masks.get(weight.name) for weight in rows}
    sums = [judged.saliency[weight.name].detach().cpu().flatten()[view].sum(1) for weight, view in rows.items()]
    gone = [_gone(old[weight], view) for weight, view in rows.items()]
    kept = _strongest(sums, gone, selection, rows, evidence)
    small, masked, done = copy.deepcopy(graph), [], list[Option]()
    for (weight, view), stays in zip(rows.items(), kept, strict=True):
        mask = torch.zeros(view.numel(), dtype=torch.bool)
        mask[view[stays]] = True
        mask = mask.reshape(graph.tensor(weight.name).shape).to(graph.tensor(weight.name).device)
        if (earlier := old[weight]) is not None:
            mask &= earlier
        if not bool(mask.all()):
            small.masks[weight.name] = mask
            masked.append(weight)
            own = selection.granularity.stays is not None  # the granularity's name says how much stays, as "2:4" does
            least = {"least": 1} if not own and selection.empties(len(view)) else {}
            rows_left = None if own else int(stays.sum())
            done.append(selection.step("weight", weight.place, mask.numel(), int(mask.sum()), rows_left, **least))
    skipped = [weight for weight, view in views.items() if view is None]
    for weight in skipped:
        size = math.prod(weight.shape)
        done.append(selection.step("weight", weight.place, size, size, skipped=list(weight.shape)))
    small.plan += done
    if surprising := [weight for weight in skipped if not (_of_kernels(selection) and _is_matrix(weight))]:
        named = ", ".join(weight.place for weight in surprising)
        warnings.warn(f"granularity='{selection.granularity.name}' does not fit, so these stay: {named}", stacklevel=3)
    if judged.weights is not None:
        with torch.no_grad():
            for name, values in judged.weights({weight.name: small.masks[weight.name] for weight in masked}).items():
                small.tensor(name).copy_(values)
    small.apply_masks()
    return small


def rows_of(tensor: Tensor, weight: Weight, selection: Selection) -> Tensor | None:
    """Returns which positions of the flattened tensor stand or fall together, `(rows, members)`; None if none do."""
    positions = weight.view(torch.arange(tensor.numel()).reshape(tensor.shape))
    view: Tensor | None = selection.granularity.entry.function(positions, **selection.granularity.arguments)
    return view


def shrunk(graph: Graph, selection: Selection, found: Sequence[Weight]) -> Graph:
    """Returns a graph with smaller kernels where masks prune the same positions in all kernels of a layer.

    Only some granularities can do that; with the others the graph is returned as it is. The plan says what became of each
    weight.
    """
    shrink = selection.granularity.entry.shrink
    if shrink is None:
        return graph
    places = {weight.name: weight.place for weight in found}
    small, became = shrink(graph, places)
    last = {step.place.path: position for position, step in enumerate(small.plan)}
    options = list(small.plan)
    for name, what in became.items():
        if (position := last.get(places[name])) is not None:
            step = options[position]
            options[position] = replace(step, found={**step.found, "became": what})
    small.plan = small.plan.having(options)
    return small


def _gone(mask: Tensor | None, view: Tensor) -> Tensor:
    """Returns the rows that an earlier mask prunes whole, as booleans `(rows,)`."""
    return torch.zeros(len(view), dtype=torch.bool) if mask is None else ~mask.cpu().flatten()[view].any(1)


def _strongest(
    sums: Sequence[Tensor],
    gone: Sequence[Tensor],
    selection: Selection,
    found: dict[Weight, Tensor],
    evidence: Evidence,
) -> list[Tensor]:
    """Returns which rows of each weight stay, as booleans `(rows,)`; rows that are gone already go first."""
    scores = [selection.finish(rows) for rows in sums]
    for score, weight in zip(scores, found, strict=True):
        selection.check(score, [weight.place])
    if selection.granularity.stays is not None:
        shapes = [weight.shape for weight in found]
        return selection.granularity.stays([lowest(*one) for one in zip(sums, gone, strict=True)], shapes)
    scores = [lowest(*one) for one in zip(scores, gone, strict=True)]
    places = [_place(evidence.graph, weight, view) for weight, view in found.items()]
    kept = selection.kept(scores, None, places, selection.damage(evidence, scores, places))
    return [score.argsort(stable=True).argsort() >= len(score) - keep for score, keep in zip(scores, kept, strict=True)]


def _place(graph: Graph, weight: Weight, view: Tensor) -> Scored:
    tensor = graph.tensor(weight.name).detach()

    def without(gone: Tensor) -> dict[str, Tensor]:
        return {weight.name: tensor.flatten().index_fill(0, view[gone].flatten().to(tensor.device), 0).view_as(tensor)}

    return Scored(weight.place, tuple(tensor.shape), without)


def _of_kernels(selection: Selection) -> bool:
    return selection.granularity.entry.kernels


def _is_matrix(weight: Weight) -> bool:
    return math.prod(weight.shape[2:]) == 1


def _misfit(weight: Weight) -> str:
    return f"does not fit {'×'.join(map(str, weight.shape))}"


def _nothing_to_prune(views: dict[Weight, Tensor | None], selection: Selection) -> str:
    name = selection.granularity.name
    if not views:
        return "No weight can be pruned: among the layers that include and exclude leave, none multiplies by a weight."
    misfits = "; ".join(f"{weight.place}: {_misfit(weight)}" for weight in views)
    return f"granularity='{name}' fits no layer of this model ({misfits}). granularity='element' fits all."
