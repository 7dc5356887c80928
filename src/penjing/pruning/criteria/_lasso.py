"""Which few channels suffice to reconstruct the outputs of the next layers."""

import numpy as np
import torch
from sklearn.linear_model import lasso_path
from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import Compensated, criteria
from penjing.pruning.reconstruction import readers

STEPS = 100  # strengths of the penalty that are tried


@criteria.register(
    source="He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017", needs={"data"}, level="unit"
)
def lasso(evidence: Evidence) -> Compensated:
    """LASSO selection: units that reconstruct the next layers' outputs even under strong penalties stay; then least squares.

    Each unit's contribution to the next layers' outputs gets a factor, which an L1 penalty draws to zero. A unit's score is
    the number of penalties under which its factor isn't zero; the factor under the weakest penalty breaks ties. The next
    layers' remaining weights are then fitted to their old outputs.

    The paper goes through the network layer by layer, fits each layer to the inputs that the pruned layers before it give,
    and looks at ten positions of each of 5000 images. Here all groups are chosen at once, on the original's inputs and from
    all positions of the calibration batches. Where several layers read a group, each counts relative to the squared norm of
    its outputs.
    """
    found = readers(evidence)
    return Compensated([path(found.contributions(group)) for group in evidence.groups], units=found.refitted)


def path(contributions: Tensor) -> Tensor:
    """Returns the score of each unit, from the Gram matrix of the units' contributions to the outputs.

    The columns of a square root of that matrix have the same inner products as the contributions, so that
    ‖outputs − Σ βᵢ unitᵢ‖² is the same with them.
    """
    values, vectors = torch.linalg.eigh(contributions)
    root = (values.clamp_min(0).sqrt()[:, None] * vectors.T).numpy()
    _, factors, _ = lasso_path(np.asfortranarray(root), root.sum(1), eps=1e-4, alphas=STEPS)
    size = np.abs(factors[:, -1])
    return torch.from_numpy((factors != 0).sum(1) + size / (1 + size.max())).float()
