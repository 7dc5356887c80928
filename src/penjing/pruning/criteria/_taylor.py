"""First-order estimate of how much the loss changes when a unit goes."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.evidence.gates import gate_entries
from penjing.pruning.criteria._registry import criteria


@criteria.register(
    source="Molchanov et al., Importance Estimation for Neural Network Pruning, 2019",
    needs={"data", "labels", "gradients"},
    level="unit",
)
def taylor(evidence: Evidence) -> list[Tensor]:
    """Squared first-order change of the loss, (Σ w ∂L/∂w)², averaged over batches.

    The sum runs over the scales and shifts of the norms behind a unit (the gate position that the paper found best),
    or over its weights and biases where there is no norm. For a hidden unit of a recurrent layer it runs over the weights
    that read the unit's state.
    """
    found = [gate_entries(evidence, group) for group in evidence.groups]
    scores = [torch.zeros(group.units) for group in evidence.groups]
    batches = 0
    for gradient in evidence.gradients({entry.tensor for entries in found for entry in entries}):
        batches += 1
        for score, entries in zip(scores, found, strict=True):
            change = torch.zeros(len(score))
            for entry in entries:
                slope = gradient(entry.tensor)
                if slope is not None:
                    change += evidence.per_unit(evidence.graph.tensor(entry.tensor).detach() * slope, entry)
            score += change.square()
    return [score / max(batches, 1) for score in scores]
