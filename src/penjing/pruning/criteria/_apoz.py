"""How often a channel's activations are zero."""

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.feature_maps import means
from penjing.pruning.criteria._registry import criteria


@criteria.register(
    source="Hu et al., Network Trimming: A Data-Driven Neuron Pruning Approach, 2016", needs={"data"}, level="unit"
)
def apoz(evidence: Evidence) -> list[Tensor]:
    """Share of activations that aren't zero: 1 − APoZ, where APoZ is the average percentage of zeros behind a ReLU."""
    scores = means(evidence, lambda maps: (maps != 0).float())
    for group, score in zip(evidence.groups, scores, strict=True):
        if bool(torch.all(score == 1)):
            raise PenjingError(
                f"apoz needs activations that can be zero, as behind a ReLU, and those of {group.name} never are; "
                "use another criterion, or leave that module out with exclude=…."
            )
    return scores
