"""How much information a channel's feature maps hold, measured by their rank."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.evidence.feature_maps import means
from penjing.pruning.criteria._registry import criteria


@criteria.register(
    source="Lin et al., HRank: Filter Pruning using High-Rank Feature Map, 2020", needs={"data"}, level="unit"
)
def hrank(evidence: Evidence) -> list[Tensor]:
    """Average rank of a unit's feature maps; a map of one number has rank 1, or 0 if the number is 0."""
    return means(evidence, _ranks)


def _ranks(maps: Tensor) -> Tensor:
    while maps.dim() < 5:  # (units, copies, batch, height, width)
        maps = maps.unsqueeze(-1)
    return torch.linalg.matrix_rank(maps.flatten(3, -2).float()).float()
