"""First-order estimate of what the loss gains when a unit goes."""

import torch
from torch import Tensor

from penjing.graph import Entry, Group
from penjing.prune.criteria._registry import criteria
from penjing.prune.evidence import Evidence


@criteria.register(
    source="Molchanov et al., Importance Estimation for Neural Network Pruning, 2019",
    needs=("data", "labels", "gradients"),
    level="unit",
)
def taylor(evidence: Evidence) -> list[Tensor]:
    """Squared first-order change of the loss, (Σ w ∂L/∂w)², averaged over batches.

    The sum runs over the scales and shifts of the norms behind a unit (the gate position that the paper found best),
    or over its weights and biases where there is no norm.
    """
    scores = [torch.zeros(group.units) for group in evidence.groups]
    batches = 0
    for gradient in evidence.gradients():
        batches += 1
        for score, group in zip(scores, evidence.groups, strict=True):
            change = torch.zeros(group.units)
            for entry in gates(group):
                slope = gradient(entry.tensor)
                if slope is not None:
                    change += evidence.per_unit(evidence.graph.tensor(entry.tensor).detach() * slope, entry)
            score += change.square()
    return [score / max(batches, 1) for score in scores]


def gates(group: Group) -> list[Entry]:
    """Returns where a gate on each of a group's units would multiply: norms' scales and shifts, or weights and biases."""
    roles = ("scale", "shift") if any(e.role == "scale" for e in group.entries) else ("out", "shift")
    return [entry for entry in group.entries if entry.role in roles]
