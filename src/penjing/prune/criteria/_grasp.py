"""What a weight does for the flow of gradients, before training."""

import torch
from torch import Tensor

from penjing.prune.criteria._registry import criteria, makers
from penjing.prune.criteria._second_order import hessian_products
from penjing.prune.evidence import Evidence


@criteria.register(
    source="Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow, 2020",
    needs=("data", "labels", "gradients"),
    level="weight",
)
def grasp(evidence: Evidence) -> dict[str, Tensor]:
    """Preserved gradient flow w ⊙ Hg: how much the gradient's norm falls, to first order, without the weight.

    The paper removes the largest −w ⊙ Hg; here as everywhere the least important are lowest.
    """
    weights = makers(evidence)
    scores = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for product in hessian_products(evidence, list(weights), lambda gradient: gradient):
        for name, weight in weights.items():
            scores[name] += weight * product.curved[name]
    return scores
