"""How the error of an approximated weight counts: by itself, by what it does to the layer's outputs, or to the loss."""

from dataclasses import dataclass
from functools import cached_property
from typing import overload

import torch
from torch import Tensor

from penjing.evidence.thin_matrix import ThinMatrix

Gram = Tensor | ThinMatrix
RIDGE = 1e-6  # what is added to a Gram matrix's diagonal, relative to its mean: unused directions count a little, too


@dataclass(frozen=True)
class Weighting:
    """A weight that is to be approximated, and the matrices in which its errors are measured.

    The error of an approximation with the difference D = W - Ŵ, flattened to (out, in · kernel), is tr(A D G Dᵀ): the mean
    square of the outputs' error, if G is the covariance of the columns that the weight multiplies.

    Attributes:
        weight: W, (out, in, *kernel), in double precision.
        gram: G, (in · kernel, in · kernel), symmetric; None stands for the identity. Thin where it is too
            large to be written out.
        outer: A, (out, out), symmetric; None stands for the identity.
    """

    weight: Tensor
    gram: Gram | None = None
    outer: Tensor | None = None

    @property
    def flat(self) -> Tensor:
        """The weight as a matrix (out, in · kernel)."""
        return self.weight.flatten(1)

    @cached_property
    def ridged(self) -> Gram | None:
        """G with a small multiple of the identity."""
        return None if self.gram is None else with_ridge(self.gram)

    def marginal(self, *axes: int) -> Gram | None:
        """Returns the Gram matrix of what the columns hold at some axes of (in, *kernel), the mean over all others.

        Args:
            axes: of the weight without its first axis; 0 are the input channels.
        """
        if self.ridged is None:
            return None
        shape = self.weight.shape[1:]
        if isinstance(self.ridged, ThinMatrix):
            return self.ridged.marginal(shape, axes)
        gram = self.ridged.reshape(*shape, *shape)
        count = len(shape)
        for axis in reversed([axis for axis in range(count) if axis not in axes]):
            gram = gram.diagonal(dim1=axis, dim2=axis + count).mean(-1)
            count -= 1
        size = int(torch.Size(shape[axis] for axis in axes).numel())
        return gram.reshape(size, size)

    @property
    def channels(self) -> Tensor | None:
        """The Gram matrix of the input channels of a weight with a kernel, the mean over the kernel's positions."""
        found = self.marginal(0)
        assert not isinstance(found, ThinMatrix), "a matrix has no kernel over which to take the mean"
        return found

    def error(self, approximated: Tensor) -> float:
        """Returns the error of an approximation, relative to that of zeros; 0 where zeros are right."""
        whole = self._energy(self.flat)
        return self._energy(self.flat - approximated.flatten(1)) / whole if whole > 0 else 0.0

    def _energy(self, difference: Tensor) -> float:
        weighted = difference if self.gram is None else difference @ self.gram
        left = difference if self.outer is None else self.outer @ difference
        return float((left * weighted).sum().clamp_min(0))

    def refitted(self, body: Tensor) -> Tensor | None:
        """Returns the matrix U for which U · body comes nearest to the weight; None without a Gram matrix.

        Args:
            body: (features, in · kernel).
        """
        if self.ridged is None:
            return None
        right = body @ self.ridged
        inner = with_ridge(right @ body.T, 1e-12)
        return torch.linalg.solve(inner, right @ self.flat.T).T


@overload
def with_ridge(gram: Tensor, share: float = ...) -> Tensor: ...
@overload
def with_ridge(gram: Gram, share: float = ...) -> Gram: ...
def with_ridge(gram: Gram, share: float = RIDGE) -> Gram:
    """Returns a Gram matrix with a share of its mean diagonal added to the diagonal; the identity where it is zero."""
    mean = float(gram.diagonal().mean())
    return plus_identity(gram, share * mean if mean > 0 else 1.0)


def plus_identity(gram: Gram, times: float) -> Gram:
    """Returns a Gram matrix plus a multiple of the identity."""
    if isinstance(gram, ThinMatrix):
        return gram.with_ridge(times)
    return gram + times * torch.eye(len(gram), dtype=gram.dtype)


def solved(rows: Tensor, gram: Gram) -> Tensor:
    """Returns rows times the inverse of a positive Gram matrix."""
    return gram.solved(rows) if isinstance(gram, ThinMatrix) else torch.linalg.solve(gram, rows, left=False)


def root(matrix: Tensor) -> Tensor:
    """Returns the symmetric square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def inverse_root(matrix: Tensor) -> Tensor:
    """Returns the inverse of the symmetric square root of a positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors / values.clamp_min(torch.finfo(values.dtype).tiny).sqrt()) @ vectors.T
