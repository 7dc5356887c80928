"""Pulls weights towards the matrices of low rank that they will be replaced by."""

import torch
from torch import Tensor

from penjing.penalties._registry import penalties
from penjing.penalties._spectrum import left_spectrum, wide
from penjing.penalties._structure import Structure
from penjing.registry import OwnNumber


@penalties.register(
    source="Idelbayev & Carreira-Perpiñán, Low-Rank Compression of Neural Nets: Learning the Rank of Each Layer, CVPR 2020",
    needs={"training"},
    of="weights",
    weight=1e-2,
    number=OwnNumber("share of each layer's full rank that stays free", default=0.25, lowest=0.0, highest=1.0),
)
def subspace(structure: Structure, share: float) -> Tensor:
    """Half the energy outside of each weight's top-r singular directions, ½ Σ_{i>r} σᵢ² = ½ ‖W − W_r‖² ("subspace:0.25").

    This is the quadratic penalty of the paper's learning step, with W_r, the nearest matrix of rank r, found anew at every step.
    The paper also chooses the ranks; here r is a share of the full rank of each layer, at least 1. The gradient is W − W_r, since
    the top directions are those at which the distance is least. It costs what `nuclear_norm` costs.
    """
    terms = []
    for matrix in map(wide, structure.matrices()):
        rank = max(1, round(share * matrix.shape[0]))
        top = left_spectrum(matrix)[1][:, matrix.shape[0] - rank :].to(matrix.dtype)
        terms.append((matrix - top @ (top.mT @ matrix)).square().sum() / 2)
    return torch.stack(terms).sum()
