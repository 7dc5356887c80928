"""Second-order estimate of how much the loss grows when a unit goes, from gradients of single samples."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.evidence.gates import gate_slopes
from penjing.pruning.criteria._registry import criteria


@criteria.register(
    source="Theis et al., Faster Gaze Prediction with Dense Networks and Fisher Pruning, 2018",
    needs={"data", "labels", "gradients"},
    level="unit",
)
def fisher(evidence: Evidence) -> list[Tensor]:
    """Fisher information of a gate on the unit: ½ mean over samples of (Σ a ∂L/∂a)², summed over a unit's positions."""
    scores = [torch.zeros(group.units) for group in evidence.groups]
    samples = 0
    for slopes in gate_slopes(evidence):
        samples += slopes[0].shape[1]
        for score, slope in zip(scores, slopes, strict=True):
            score += slope.square().sum(1) / 2
    return [score / max(samples, 1) for score in scores]
