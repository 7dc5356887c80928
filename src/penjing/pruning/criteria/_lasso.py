"""Which channels suffice for the next layers."""

import numpy as np
import torch
from sklearn.linear_model import lasso_path
from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import Compensated, criteria
from penjing.pruning.reconstruction import readers

STEPS = 100  # number of strengths of the penalty that are tried


@criteria.register(
    source="He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017", needs={"data"}, level="unit"
)
def lasso(evidence: Evidence) -> Compensated:
    """LASSO selection: units that reconstruct the next layers' outputs under the strongest penalty; then least squares.

    A unit's score is the number of penalties, from the weakest, under which its factor isn't zero; its factor under the
    weakest breaks ties. The next layers' remaining weights are fitted to their old outputs.

    Other than in the paper, which goes through the network layer by layer, fits each to the inputs that the pruned ones
    before it leave, and looks at ten positions of each of 5000 images: all groups are chosen at once on the inputs of the
    original, from all positions of the calibration batches. Where several layers read a group, each counts relative to its
    outputs' size.
    """
    found = readers(evidence)
    return Compensated([path(found.contributions(group)) for group in evidence.groups], units=found.refitted)


def path(contributions: Tensor) -> Tensor:
    """Returns the score of each unit, from the Gram matrix of what units add to the outputs.

    A square root of that matrix has the same inner products, so that ‖outputs − Σ βᵢ unitᵢ‖² is the same with it.
    """
    values, vectors = torch.linalg.eigh(contributions)
    root = (values.clamp_min(0).sqrt()[:, None] * vectors.T).numpy()
    _, factors, _ = lasso_path(np.asfortranarray(root), root.sum(1), eps=1e-4, alphas=STEPS)
    size = np.abs(factors[:, -1])
    return torch.from_numpy((factors != 0).sum(1) + size / (1 + size.max())).float()
