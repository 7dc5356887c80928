"""How much of a unit's weight stands in few large entries."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import criteria


@criteria.register(
    source="Hoyer, Non-negative Matrix Factorization with Sparseness Constraints, 2004 (the ratio of norms)",
    level="unit",
)
def frobenius_l1(evidence: Evidence) -> list[Tensor]:
    """Concentration: ‖W‖_F / ‖W‖₁ of the matrix W that makes a unit, 1/√n for n equal entries and 1 for a single one.

    It doesn't depend on the weights' scale. A unit whose weights are all zero scores 0.
    """
    scores = []
    for group in evidence.groups:
        made = [entry for entry in group.entries if entry.role == "out"]
        rows = torch.cat([evidence.of_units(evidence.graph.tensor(e.tensor).detach(), e) for e in made], 1)
        rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(
            torch.finfo(rows.dtype).tiny
        )  # squares of tiny weights are 0
        sums = rows.abs().sum(1)
        scores.append(torch.where(sums > 0, rows.norm(dim=1) / sums.clamp_min(torch.finfo(rows.dtype).tiny), 0.0))
    return scores
