"""Second-order estimate of what the loss gains when a unit goes, from gradients of single samples."""

import torch
from torch import Tensor

from penjing.prune.criteria._registry import criteria
from penjing.prune.evidence import Evidence
from penjing.prune.features import sites


@criteria.register(
    source="Theis et al., Faster Gaze Prediction with Dense Networks and Fisher Pruning, 2018",
    needs=("data", "labels", "gradients"),
    level="unit",
)
def fisher(evidence: Evidence) -> list[Tensor]:
    """Fisher information of a gate on the unit: ½ mean over samples of (Σ a ∂L/∂a)², summed over a unit's positions."""
    places = [sites(evidence, group) for group in evidence.groups]
    scores = [torch.zeros(group.units) for group in evidence.groups]
    samples = 0
    for values, slopes in evidence.slopes(sorted({site.node for found in places for site in found})):
        count = len(next(iter(values.values())))
        samples += count
        for score, found in zip(scores, places, strict=True):
            gates = [site.maps(values[site.node] * slopes[site.node]) * count for site in found]  # the loss is a mean
            score += sum(gate.transpose(1, 2).flatten(2).sum(2) for gate in gates).square().sum(1).cpu() / 2  # type: ignore
    return [score / max(samples, 1) for score in scores]
