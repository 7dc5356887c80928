"""Makes the filters of a layer orthogonal and of norm 1."""

import torch
from torch import Tensor

from penjing.penalties._registry import penalties
from penjing.penalties._spectrum import wide
from penjing.penalties._structure import Structure


@penalties.register(
    source="Bansal et al., Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?, 2018; Xie et al., 2017",
    needs={"training"},
    of="weights",
    weight=1e-3,
)
def orthogonal(structure: Structure) -> Tensor:
    """Soft orthogonality: ‖W Wᵀ − I‖² (Frobenius) of every layer's weight as a matrix, out × rest.

    A layer with more outputs than inputs can't have orthogonal rows, so the columns of such a layer are made orthogonal:
    ‖Wᵀ W − I‖² is less by the constant out − rest and has the same gradient.
    """
    terms = []
    for matrix in map(wide, structure.matrices()):
        gram = matrix @ matrix.mT
        terms.append((gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum())
    return torch.stack(terms).sum()
