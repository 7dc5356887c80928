"""Square matrices that are too large to be written out, but differ from a multiple of the identity by a product of thin ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class ThinMatrix:
    """The matrix ridge · I + left · rightᵀ: what a Gram matrix is of fewer samples than values.

    `matrix @ thin` is what it would be with the matrix written out.

    Attributes:
        left: (size, samples).
        right: (size, samples).
        ridge: the multiple of the identity.
    """

    left: Tensor
    right: Tensor
    ridge: float = 0.0

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.left)

    def __rmatmul__(self, rows: Tensor) -> Tensor:
        """Returns the product of rows (…, size) with this matrix."""
        return (rows @ self.left) @ self.right.T + self.ridge * rows

    @property
    def dtype(self) -> torch.dtype:
        """The type of the factors' values."""
        return self.left.dtype

    def diagonal(self) -> Tensor:
        """Returns the diagonal, (size,)."""
        return (self.left * self.right).sum(1) + self.ridge

    def with_ridge(self, more: float) -> "ThinMatrix":
        """Returns this matrix plus a multiple of the identity."""
        return replace(self, ridge=self.ridge + more)

    def solved(self, rows: Tensor) -> Tensor:
        """Returns rows (…, size) times the inverse of this matrix, by Woodbury's identity; the ridge must be above 0.

        The system that is solved is as large as there are samples.
        """
        inner = self.right.T @ self.left
        inner.diagonal().add_(self.ridge)
        inside = torch.linalg.solve(inner, rows @ self.left, left=False)
        return (rows - inside @ self.right.T) / self.ridge

    def marginal(self, shape: Sequence[int], axes: Sequence[int]) -> "ThinMatrix | Tensor":
        """Returns what is left of this matrix over some axes of its values, the mean over all others.

        Args:
            shape: the axes' sizes, whose product is the matrix's size.
            axes: those that are kept, in their order.

        Returns:
            This matrix where all axes are kept; else a smaller one, written out.
        """
        if len(axes) == len(shape):
            return self
        others = [axis for axis in range(len(shape)) if axis not in axes]
        left, right = (
            one.reshape(*shape, -1).permute(*axes, *others, len(shape)).flatten(len(axes)).flatten(0, len(axes) - 1)
            for one in (self.left, self.right)
        )
        found = left @ right.T / torch.Size([shape[axis] for axis in others]).numel()
        found.diagonal().add_(self.ridge)
        return found
