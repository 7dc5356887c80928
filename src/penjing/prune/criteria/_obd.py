"""Second-order estimate of what the loss gains when a weight goes."""

import torch
from torch import Tensor

from penjing.prune.criteria._registry import criteria, makers
from penjing.prune.criteria._second_order import hessian_products
from penjing.prune.evidence import Evidence


@criteria.register(
    source="LeCun et al., Optimal Brain Damage, 1990; diagonal by Hutchinson's estimator, 1989",
    needs=("data", "labels", "gradients"),
    level="weight",
)
def obd(evidence: Evidence) -> dict[str, Tensor]:
    """Optimal Brain Damage: ½ hᵢᵢ w², with the Hessian's diagonal as the mean of v ⊙ Hv over random signs v."""
    weights = makers(evidence)
    generator = torch.Generator().manual_seed(evidence.seed)

    def signs(like: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: (torch.randint(2, one.shape, generator=generator) * 2 - 1).to(one) for name, one in like.items()}

    diagonal = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    batches = 0
    for product in hessian_products(evidence, list(weights), signs):
        batches += 1
        for name in diagonal:
            diagonal[name] += product.vector[name] * product.curved[name]
    return {name: weight.square() * diagonal[name] / (2 * max(batches, 1)) for name, weight in weights.items()}
