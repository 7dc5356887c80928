"""Singular values and vectors of a layer's weight."""

import torch
from torch import Tensor


def wide(matrix: Tensor) -> Tensor:
    """Returns a matrix with at most as many rows as columns: the matrix itself, or its transpose."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def left_spectrum(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the squared singular values of a wide matrix, ascending, and its left singular vectors as columns.

    They come from the eigenvalues of W Wᵀ in float64, which keeps the singular values as exact as float32 can hold them. It takes
    m² n multiplications for W Wᵀ and about 9 m³ for the eigenvalues of a matrix of m rows and n ≥ m columns; a decomposition of
    W itself would take several times m² n. Both are float64 without gradient, and NaN where the matrix isn't finite.
    """
    with torch.no_grad():
        precise = matrix.double()
        gram = precise @ precise.mT
        if not bool(gram.isfinite().all()):
            return torch.full_like(gram[0], torch.nan), torch.full_like(gram, torch.nan)
        squares, vectors = torch.linalg.eigh(gram)
        return squares, vectors
