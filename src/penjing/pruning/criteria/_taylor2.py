"""Second-order estimate of how much the loss changes when a unit goes."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.evidence.curvature import hessian_products
from penjing.evidence.gates import gate_entries
from penjing.pruning.criteria._registry import criteria


@criteria.register(
    source="Molchanov et al., Importance Estimation for Neural Network Pruning, 2019",
    needs={"data", "labels", "gradients"},
    level="unit",
)
def taylor2(evidence: Evidence) -> list[Tensor]:
    """Squared second-order change of the loss, (Σ g w − ½ w (H w))², averaged over batches; sums run as in `taylor`."""
    found = [gate_entries(evidence, group) for group in evidence.groups]
    chosen: dict[str, Tensor] = {}
    for entry in (entry for entries in found for entry in entries):
        weight = evidence.graph.tensor(entry.tensor).detach()
        part = torch.from_numpy(entry.indices.ravel()).to(weight.device)
        vector = chosen.setdefault(entry.tensor, torch.zeros_like(weight))
        vector.index_copy_(entry.axis, part, weight.index_select(entry.axis, part))
    scores = [torch.zeros(group.units) for group in evidence.groups]
    batches = 0
    for product in hessian_products(evidence, list(chosen), lambda _: chosen):
        batches += 1
        change = {name: one * (product.slope[name] - product.curved[name] / 2) for name, one in chosen.items()}
        for score, entries in zip(scores, found, strict=True):
            score += torch.stack([evidence.per_unit(change[e.tensor], e) for e in entries]).sum(0).square()
    return [score / max(batches, 1) for score in scores]
