"""How much a channel's maps hold."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.evidence.feature_maps import means
from penjing.pruning.criteria._registry import criteria


@criteria.register(
    source="Lin et al., HRank: Filter Pruning using High-Rank Feature Map, 2020", needs={"data"}, level="unit"
)
def hrank(evidence: Evidence) -> list[Tensor]:
    """Average rank of a unit's feature maps; that of a single number is 1 unless it is 0."""
    return means(evidence, _ranks)


def _ranks(maps: Tensor) -> Tensor:
    while maps.dim() < 5:  # (units, copies, batch, height, width)
        maps = maps.unsqueeze(-1)
    return torch.linalg.matrix_rank(maps.flatten(3, -2).float()).float()
