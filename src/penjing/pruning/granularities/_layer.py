"""Residual branches: whole blocks or layers go, the identity around them stays."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.granularities._registry import granularities


@granularities.register(
    source="Elkerdawy et al., To Filter Prune, or to Layer Prune, That Is the Question, 2020", removes="branches"
)
def layer(evidence: Evidence, saliency: Mapping[str, Tensor], finish: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Layers: a residual branch's score is the mean over all of its weights; the graph gets shorter.

    The score is a mean, not a sum as for filters: the units of a group have one size, while branches grow with depth, so
    that a sum would only tell small branches from large ones.
    """
    scores = []
    for branch in evidence.branches:
        values = [saliency[name] for name in branch.weights]
        scores.append(torch.stack([v.sum() for v in values]).sum().cpu() / sum(v.numel() for v in values))
    return [finish(torch.stack(scores))]
