"""The factor that a batch norm puts on each channel."""

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import criteria


@criteria.register(source="Liu et al., Learning Efficient ConvNets through Network Slimming, 2017", level="unit")
def bn_scale(evidence: Evidence) -> list[Tensor]:
    """Magnitude of the norms' scales γ on a unit's channels: mean |γ| over them."""
    scores = []
    for group in evidence.groups:
        scales = [entry for entry in group.entries if entry.role == "scale"]
        if not scales:
            raise PenjingError(
                f"bn_scale needs a norm with a scale behind {group.name}, and there is none; "
                "use another criterion, or leave that module out with exclude=…."
            )
        sums = [evidence.per_unit(evidence.graph.tensor(e.tensor).detach().abs(), e) for e in scales]
        scores.append(torch.stack(sums).sum(0) / sum(entry.indices.shape[1] for entry in scales))
    return scores
