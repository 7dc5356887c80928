"""Distance to the other filters of a layer."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import criteria


@criteria.register(
    source="He et al., Filter Pruning via Geometric Median for Deep Neural Networks Acceleration, 2019", level="unit"
)
def fpgm(evidence: Evidence) -> list[Tensor]:
    """Sum of distances to the other filters, Σⱼ ‖Fᵢ − Fⱼ‖: those nearest the geometric median are replaceable, and go."""
    scores = []
    for group in evidence.groups:
        made = [entry for entry in group.entries if entry.role == "out"]
        filters = torch.cat([evidence.of_units(evidence.graph.tensor(e.tensor).detach(), e) for e in made], 1)
        scores.append(torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1))
    return scores
