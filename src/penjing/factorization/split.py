"""The split of one linear map into two through a few values, with the least error: the step of which decompositions are made."""

from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.factorization.weighting import inverse_root, root


@dataclass(frozen=True)
class LowRank:
    """Two maps in the place of one: `last @ first`.

    Attributes:
        first: (rank, inputs); Σ is in it, so that the values between both have the scales in which errors count alike.
        last: (outputs, rank).
    """

    first: Tensor
    last: Tensor


def split(matrix: Tensor, rank: int, gram: Tensor | None = None, outer: Tensor | None = None) -> LowRank:
    """Returns the best approximation of a matrix by one of a rank (Eckart and Young, 1936).

    With Gram matrices it is the one whose outputs are nearest: principal component analysis of the outputs. Only left singular
    vectors are used, so nothing is divided by small singular values.

    Args:
        matrix: (outputs, inputs), in double precision.
        rank: from 1 to the smaller side.
        gram: (inputs, inputs), positive; how the inputs vary.
        outer: (outputs, outputs), positive; how errors of the outputs count.
    """
    last = outputs(matrix, rank, gram, outer)
    return LowRank((last if outer is None else outer @ last).T @ matrix, last)


def outputs(matrix: Tensor, rank: int, gram: Tensor | None = None, outer: Tensor | None = None) -> Tensor:
    """Returns the map behind the split alone, (outputs, rank); see `split`."""
    left = matrix if outer is None else root(outer) @ matrix
    vectors = _left_vectors(left if gram is None else left @ root(gram), rank)
    return vectors if outer is None else inverse_root(outer) @ vectors


def spectrum(matrix: Tensor, gram: Tensor | None = None, outer: Tensor | None = None) -> Tensor:
    """Returns the singular values that `split` cuts, falling."""
    matrix = matrix if outer is None else root(outer) @ matrix
    return _singular_values(matrix if gram is None else matrix @ root(gram))


def _left_vectors(matrix: Tensor, rank: int) -> Tensor:
    """Returns the first left singular vectors (outputs, rank), from an eigenproblem of the smaller side.

    A singular value decomposition takes some five times as long. A basis that is orthogonalised spans the same space, and
    small singular values, which squaring loses, are those that are cut.
    """
    outputs, inputs = matrix.shape
    if outputs <= inputs:
        return torch.linalg.eigh(matrix @ matrix.T)[1].flip(1)[:, :rank]
    right = torch.linalg.eigh(matrix.T @ matrix)[1].flip(1)[:, :rank]
    return torch.linalg.qr(matrix @ right)[0]


def _singular_values(matrix: Tensor) -> Tensor:
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(small).flip(0).clamp_min(0).sqrt()
