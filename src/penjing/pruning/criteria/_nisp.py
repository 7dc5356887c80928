"""Importance propagated from the last responses back to every unit."""

import copy

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.feature_maps import sites
from penjing.graph import Graph
from penjing.graph.weights import weights
from penjing.pruning.criteria._registry import criteria
from penjing.pruning.linearized import absolute, ones

MIXING = 0.5  # weight of spread against independence in infinite feature selection
REACH = 0.9  # share of the largest factor with which sums over paths of all lengths converge


@criteria.register(
    source="Yu et al., NISP: Pruning Networks using Neuron Importance Score Propagation, 2018",
    needs={"data"},
    level="unit",
)
def nisp(evidence: Evidence) -> list[Tensor]:
    """Importance of what the last layer reads, by infinite feature selection, carried back by magnitudes: s ← |W|ᵀ s.

    What is independent is measured with Pearson's correlation, for which sums are enough, not with Spearman's. As in the
    paper activation functions let importance pass; norms multiply it by |γ| / σ, and what is averaged shares it.
    """
    node, source, axis = _last(evidence.graph)
    covariance = _covariance(evidence, source, axis)
    if not bool(torch.isfinite(covariance).all()):
        raise PenjingError(f"On this data {node} reads values that aren't finite numbers.")
    importance = infinite_selection(covariance)
    model = absolute(copy.deepcopy(evidence.graph))
    places = [sites(evidence, group) for group in evidence.groups]
    names = list(dict.fromkeys([source, *(site.node for found in places for site in found)]))
    tapped = model.with_outputs(names)
    values = dict(zip(names, tapped.program(*ones(model))[-len(names) :], strict=True))
    response = (values[source].movedim(axis, -1) * importance.to(values[source])).sum()
    slopes = dict(zip(names, torch.autograd.grad(response, list(values.values()), allow_unused=True), strict=True))
    scores = []
    for group, found in zip(evidence.groups, places, strict=True):
        reached = [site.maps(slope).flatten(1).sum(1) for site in found if (slope := slopes[site.node]) is not None]
        if not reached:
            raise PenjingError(
                f"nisp carries importance back from what {node} reads, and {group.name} does not lead there; "
                "use another criterion, or leave that module out with exclude=…."
            )
        scores.append(torch.stack(reached).sum(0).float().cpu())
    return scores


def infinite_selection(covariance: Tensor) -> Tensor:
    """Returns the importance of each feature (Roffo et al., Infinite Feature Selection, 2015).

    Features are the nodes of a graph whose edges weigh how much two spread and how little they tell of one another; the
    importance is the sum over all paths that start there: the rows of (I − r A)⁻¹ − I.
    """
    spread = covariance.diagonal().clamp_min(0).sqrt()
    scale = spread * spread[:, None]
    correlation = torch.where(
        scale > 0, (covariance / scale).abs().clamp_max(1), 1.0
    )  # what never changes tells nothing
    spread = spread / spread.max().clamp_min(torch.finfo(spread.dtype).tiny)
    edges = MIXING * torch.maximum(spread, spread[:, None]) + (1 - MIXING) * (1 - correlation)
    step = REACH / torch.linalg.eigvalsh(edges).abs().max()
    eye = torch.eye(len(edges), dtype=edges.dtype)
    return torch.linalg.solve(eye - step * edges, torch.ones(len(edges), dtype=edges.dtype)) - 1


def _covariance(evidence: Evidence, source: str, axis: int) -> Tensor:
    """Returns the covariance of the features on an axis of a node's values, over samples and positions, in one pass."""
    count, first, second = 0, torch.zeros(()), torch.zeros(())
    for values in evidence.values([source]):
        rows = values[source].movedim(axis, -1).flatten(0, -2).double().cpu()
        count, first, second = count + len(rows), first + rows.sum(0), second + rows.T @ rows
    mean = first / max(count, 1)
    return second / max(count, 1) - mean[:, None] * mean


def _last(graph: Graph) -> tuple[str, str, int]:
    """Returns the last layer that multiplies by a weight, what it reads, and on which axis the features lie there."""
    known = {weight.name: weight for weight in weights(graph)}
    for node in reversed(graph.program.graph.nodes):
        for given in node.args:
            weight = known.get(str(given.target)) if isinstance(given, fx.Node) and given.op == "get_attr" else None
            source = node.args[1 if "addmm" in str(node.target) else 0]
            if weight is not None and isinstance(source, fx.Node) and source.op == "call_function":
                kernel = len(weight.shape) - 2
                return str(node.meta.get("module") or node.name), source.name, -1 - kernel
    raise PenjingError("nisp needs a last layer that multiplies by a weight, and this model has none.")
