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

MIXING = 0.5  # weight of the features' spread in infinite feature selection; the rest is that of their independence
REACH = 0.9  # the factor r per edge of a path, as a share of the largest for which the sum over all paths converges


@criteria.register(
    source="Yu et al., NISP: Pruning Networks using Neuron Importance Score Propagation, 2018",
    needs={"data"},
    level="unit",
)
def nisp(evidence: Evidence) -> list[Tensor]:
    """Importance of the last layer's inputs, by infinite feature selection, carried back to every unit: s ← |W|ᵀ s.

    Pearson's correlation says how independent two features are, since running sums suffice for it; the paper uses
    Spearman's. As in the paper, activation functions pass importance on unchanged. Norms multiply it by |γ| / σ, and means
    divide it among their inputs.
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

    Features are the nodes of a graph. An edge's weight, in A, is the larger the more its two features spread and the less
    they are correlated. A feature's importance is the sum over all paths that start at its node: the sum of its row of
    (I − r A)⁻¹ − I.
    """
    spread = covariance.diagonal().clamp_min(0).sqrt()
    scale = spread * spread[:, None]
    # A feature that never changes counts as correlated with all others: it adds no information.
    correlation = torch.where(scale > 0, (covariance / scale).abs().clamp_max(1), 1.0)
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
    """Returns the last layer that multiplies by a weight, the node that it reads, and the axis of that node's features."""
    known = {weight.name: weight for weight in weights(graph)}
    for node in reversed(graph.program.graph.nodes):
        for given in node.args:
            weight = known.get(str(given.target)) if isinstance(given, fx.Node) and given.op == "get_attr" else None
            source = node.args[1 if "addmm" in str(node.target) else 0]
            if weight is not None and isinstance(source, fx.Node) and source.op == "call_function":
                kernel = len(weight.shape) - 2
                return str(node.meta.get("module") or node.name), source.name, -1 - kernel
    raise PenjingError("nisp needs a last layer that multiplies by a weight, and this model has none.")
