"""Units of the channel graph: whole filters, with everything that depends on them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.granularities._registry import granularities


@granularities.register(source="Li et al., Pruning Filters for Efficient ConvNets, 2017", removes="channels")
def filter_(evidence: Evidence, saliency: Mapping[str, Tensor], finish: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Filters: a unit's score is the sum over all weights that make its channels; tensors shrink."""
    scores = []
    for group in evidence.groups:
        made = [entry for entry in group.entries if entry.role == "out"]
        scores.append(finish(torch.stack([evidence.per_unit(saliency[e.tensor], e) for e in made]).sum(0)))
    return scores
