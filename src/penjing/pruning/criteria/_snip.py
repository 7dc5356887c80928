"""Sensitivity of the loss to a connection, before training."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import criteria, makers


@criteria.register(
    source="Lee et al., SNIP: Single-Shot Network Pruning based on Connection Sensitivity, 2019",
    needs={"data", "labels", "gradients"},
    level="weight",
)
def snip(evidence: Evidence) -> dict[str, Tensor]:
    """Connection sensitivity |w ∂L/∂w|, with the gradient of the loss over all batches."""
    weights = makers(evidence)
    slopes = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for gradient in evidence.gradients(slopes):
        for name, slope in slopes.items():
            found = gradient(name)
            slope += 0 if found is None else found
    return {name: (weight * slopes[name]).abs() for name, weight in weights.items()}
