"""The nuclear norm makes weights low in rank, as the l1 norm makes vectors sparse."""

import torch
from torch import Tensor

from penjing.penalties._registry import penalties
from penjing.penalties._spectrum import left_spectrum, wide
from penjing.penalties._structure import Structure


@penalties.register(
    source="Xu et al., TRP: Trained Rank Pruning for Efficient Deep Neural Networks, IJCAI 2020, arXiv:2004.14566",
    needs={"training"},
    of="weights",
    weight=3e-4,
)
def nuclear_norm(structure: Structure) -> Tensor:
    """Sum of the singular values of every layer's weight as a matrix, out × rest; draws small ones to zero.

    The gradient is the subgradient U Vᵀ over the singular values that aren't zero (to rounding), the one with the smallest norm:
    a layer of zeros has a gradient of zeros. For a layer of m × n, m ≤ n, a step takes an eigendecomposition of m × m (about 9 m³
    multiplications) and products of 3 m² n; the layer itself takes 3 m n for each position of each sample of the batch.
    """
    terms = []
    for matrix in map(wide, structure.matrices()):
        squares, left = left_spectrum(matrix)
        with torch.no_grad():
            rounding = max(matrix.shape) * torch.finfo(matrix.dtype).eps  # relative, as in numpy.linalg.matrix_rank
            inverse = torch.where(squares > rounding**2 * squares[-1], squares.rsqrt(), 0.0)
            subgradient = ((left * inverse) @ (left.mT @ matrix.double())).to(matrix.dtype)
        terms.append((subgradient * matrix).sum())  # ⟨U Vᵀ, W⟩ = Σ σ
    return torch.stack(terms).sum()
