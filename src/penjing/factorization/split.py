"""The split of one linear map into two through a few values, with the least error: the step of which decompositions are made."""

from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.evidence.thin_matrix import ThinMatrix
from penjing.factorization.weighting import Gram, inverse_root, root


@dataclass(frozen=True)
class LowRank:
    """Two maps in the place of one: `last @ first`.

    Attributes:
        first: (rank, inputs); Σ is in it, so that the values between both have the scales in which errors count alike.
        last: (outputs, rank).
    """

    first: Tensor
    last: Tensor


def split(matrix: Tensor, rank: int, gram: Gram | None = None, outer: Tensor | None = None) -> LowRank:
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


def outputs(matrix: Tensor, rank: int, gram: Gram | None = None, outer: Tensor | None = None) -> Tensor:
    """Returns the map behind the split alone, (outputs, rank); see `split`."""
    left = matrix if outer is None else root(outer) @ matrix
    vectors = _left_vectors(left, gram, rank)
    return vectors if outer is None else inverse_root(outer) @ vectors


def spectrum(matrix: Tensor, gram: Gram | None = None, outer: Tensor | None = None) -> Tensor:
    """Returns the singular values that `split` cuts, falling."""
    left = matrix if outer is None else root(outer) @ matrix
    if _by_outputs(left, gram):
        found = torch.linalg.eigvalsh(_of_outputs(left, gram))
    else:
        right = _seen(left, gram)
        found = torch.linalg.eigvalsh(right.T @ right)
    return found.flip(0)[: min(left.shape)].clamp_min(0).sqrt()


def _left_vectors(matrix: Tensor, gram: Gram | None, rank: int) -> Tensor:
    """Returns the first left singular vectors (outputs, rank) of a matrix times the root of a Gram matrix.

    They come from an eigenproblem of the smaller side. A singular value decomposition takes some five times as long. A basis
    that is orthogonalised spans the same space, and small singular values, which squaring loses, are those that are cut.
    """
    if _by_outputs(matrix, gram):
        return torch.linalg.eigh(_of_outputs(matrix, gram))[1].flip(1)[:, :rank]
    right = _seen(matrix, gram)
    return torch.linalg.qr(right @ torch.linalg.eigh(right.T @ right)[1].flip(1)[:, :rank])[0]


def _by_outputs(matrix: Tensor, gram: Gram | None) -> bool:
    """Tells whether the outputs' side is the smaller one, or the only one whose Gram matrix can be written out."""
    outputs, inputs = matrix.shape
    return outputs <= inputs or isinstance(gram, ThinMatrix)


def _of_outputs(matrix: Tensor, gram: Gram | None) -> Tensor:
    """Returns the Gram matrix of the outputs, which needs no root of that of the inputs."""
    return (matrix if gram is None else matrix @ gram) @ matrix.T


def _seen(matrix: Tensor, gram: Gram | None) -> Tensor:
    assert not isinstance(gram, ThinMatrix)
    return matrix if gram is None else matrix @ root(gram)
