"""The baseline that every criterion must beat."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import criteria, makers


@criteria.register(source="baseline; Mittal et al., Recovering from Random Pruning, 2018", level="weight")
def random(evidence: Evidence) -> dict[str, Tensor]:
    """Uniform random numbers, the same for the same seed."""
    generator = torch.Generator().manual_seed(evidence.seed)
    return {
        name: torch.rand(weight.shape, generator=generator).to(weight.device)
        for name, weight in makers(evidence).items()
    }
