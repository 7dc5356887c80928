"""How much a weight adds to the flow of gradients, before training."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.evidence.curvature import hessian_products
from penjing.pruning.criteria._registry import criteria, makers


@criteria.register(
    source="Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow, 2020",
    needs={"data", "labels", "gradients"},
    level="weight",
)
def grasp(evidence: Evidence) -> dict[str, Tensor]:
    """Preserved gradient flow w ⊙ Hg: how much the gradient's norm falls, to first order, without the weight.

    The paper removes the weights with the largest −w ⊙ Hg; the sign is the opposite here, since the lowest scores go.
    Gradient g and Hessian H are those of the loss over all batches, in two passes. The loss is the task's own; the paper
    divides logits by a temperature of 200 first, and draws equally many samples of each class.
    """
    weights = makers(evidence)
    slopes = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    batches = 0
    for gradient in evidence.gradients(weights):
        batches += 1
        for name, slope in slopes.items():
            found = gradient(name)
            slope += 0 if found is None else found
    mean = {name: slope / max(batches, 1) for name, slope in slopes.items()}
    scores = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for product in hessian_products(evidence, list(weights), lambda _: mean):
        for name, weight in weights.items():
            scores[name] += weight * product.curved[name] / batches
    return scores
