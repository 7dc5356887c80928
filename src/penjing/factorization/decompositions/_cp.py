"""The canonical polyadic decomposition, by alternating least squares."""

import math

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.factorization.decompositions._registry import (
    Decomposition,
    FactorLayer,
    FactorShape,
    Ranks,
    Shape,
    along,
    decompositions,
)
from penjing.factorization.weighting import Weighting, inverse_root, root

SWEEPS = 60  # of all sides; the error falls by less than a hundredth in later ones
ENOUGH = 1e-5  # relative fall of the error in a sweep, below which it ends
DAMPING = (
    1e-6  # added to each normal matrix's diagonal, relative to its mean: components that cancel each other can't grow
)
WORST = 1e3  # norms of the components together over the norm of the weight, from which the decomposition counts as degenerate


@decompositions.register(
    source="Lebedev et al., Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition, 2015; degeneracy as in "
    "Phan et al., Stable Low-rank Tensor Decomposition for Compression of CNNs, 2020",
    name="cp",
)
class Cp(Decomposition):
    """A 1×1 convolution, a depthwise one along each axis of the kernel, and a 1×1 convolution back."""

    depthwise = True

    def unfit(self, shape: Shape) -> str:
        """There must be a kernel; a matrix has a singular value decomposition."""
        return "no window" if all(size == 1 for size in shape[2:]) else ""

    def full(self, shape: Shape) -> Ranks:
        """Returns the product of all sides but the largest: with so many components every tensor can be written."""
        return (math.prod(shape) // max(shape),)

    def alike(self, shape: Shape, share: float) -> Ranks:
        """Returns a share of the number of channels: higher ranks than that cost more than the weight itself."""
        return (max(1, min(self.full(shape)[0], round(share * math.prod(shape) / (shape[0] + shape[1])))),)

    def shapes(self, shape: Shape, ranks: Ranks) -> list[FactorShape]:
        """Returns (rank, in), a kernel (rank, 1, …) for each axis, and (out, rank)."""
        outs, ins, *window = shape
        rank, ones = ranks[0], [1] * len(window)
        kernels = [FactorShape((rank, 1, *along(window, axis)), (axis,), rank) for axis in range(len(window))]
        return [FactorShape((rank, ins, *ones), ()), *kernels, FactorShape((outs, rank, *ones), ())]

    def spectra(self, weighting: Weighting) -> None:
        """Components of this decomposition aren't orthogonal, so there are no values of which the first could be kept."""

    def factors(self, weighting: Weighting, ranks: Ranks) -> list[FactorLayer]:
        """Fits all sides in turn, each by least squares, from the singular vectors of the unfoldings."""
        channels, outer = weighting.channels, weighting.outer
        seen = (
            weighting.weight
            if channels is None
            else torch.tensordot(weighting.weight, root(channels), ([1], [0])).movedim(-1, 1)
        )
        seen = seen if outer is None else torch.tensordot(root(outer), seen, 1)
        sides = _fitted(seen, ranks[0])
        if channels is not None:
            sides[1] = inverse_root(channels) @ sides[1]
        if outer is not None:
            sides[0] = inverse_root(outer) @ sides[0]
        count = len(sides) - 2
        ones = [1] * count
        kernels = [
            FactorLayer(side.T.reshape(ranks[0], 1, *along([len(side)] * count, axis)), (axis,), ranks[0])
            for axis, side in enumerate(sides[2:])
        ]
        return [
            FactorLayer(sides[1].T.reshape(ranks[0], -1, *ones), ()),
            *kernels,
            FactorLayer(sides[0].reshape(-1, ranks[0], *ones), ()),
        ]


def _fitted(tensor: Tensor, rank: int) -> list[Tensor]:
    """Returns one matrix (size, rank) for each axis; the tensor is nearly the sum of the outer products of their columns.

    Raises:
        PenjingError: components grow without bound while they cancel each other.
    """
    norm = float(tensor.norm())
    if rank == tensor.numel() // max(tensor.shape):
        return _written_out(tensor)
    sides = [_begin(tensor, axis, rank) for axis in range(tensor.dim())]
    if norm == 0:
        return [torch.zeros_like(side) for side in sides]
    before = math.inf
    for _ in range(SWEEPS):
        for axis in range(tensor.dim()):
            others = [side for place, side in enumerate(sides) if place != axis]
            inner = torch.ones(rank, rank, dtype=tensor.dtype)
            for side in others:
                inner = inner * (side.T @ side)
            product = _contracted(tensor, sides, axis)
            damped = inner + DAMPING * inner.diagonal().mean() * torch.eye(rank, dtype=tensor.dtype)
            sides[axis] = torch.linalg.solve(damped, (product + DAMPING * inner.diagonal().mean() * sides[axis]).T).T
        last = sides[-1]
        inner = inner * (last.T @ last)
        # ‖T - T̂‖² = ‖T‖² - 2⟨T, T̂⟩ + ‖T̂‖², without writing T̂ out
        error = math.sqrt(max(0.0, norm**2 - 2 * float((product * last).sum()) + float(inner.sum()))) / norm
        if not math.isfinite(error):
            break
        if before - error < ENOUGH * before:
            break
        before = error
    lengths = torch.stack([side.norm(dim=0) for side in sides]).prod(0)
    if not math.isfinite(error) or float(lengths.norm()) > WORST * norm:
        raise PenjingError(
            f"The decomposition cp doesn't converge at rank {rank}: its components grow while they cancel each other. Take "
            "another rank, or another decomposition such as tucker2."
        )
    even = lengths.pow(1 / len(sides))
    return [side / side.norm(dim=0).clamp_min(torch.finfo(side.dtype).tiny) * even for side in sides]


def _written_out(tensor: Tensor) -> list[Tensor]:
    """Returns a component for each fibre along the longest axis, which together are the tensor."""
    longest = max(range(tensor.dim()), key=lambda axis: tensor.shape[axis])
    others = [axis for axis in range(tensor.dim()) if axis != longest]
    places = torch.cartesian_prod(*(torch.arange(tensor.shape[axis]) for axis in others)).reshape(-1, len(others))
    sides = {longest: tensor.movedim(longest, 0).flatten(1)}
    for column, axis in enumerate(others):
        sides[axis] = torch.eye(tensor.shape[axis], dtype=tensor.dtype)[:, places[:, column]]
    return [sides[axis] for axis in range(tensor.dim())]


def _begin(tensor: Tensor, axis: int, rank: int) -> Tensor:
    """Returns the first singular vectors of an unfolding, and seeded random columns behind them."""
    unfolding = tensor.movedim(axis, 0).flatten(1)
    vectors = torch.linalg.eigh(unfolding @ unfolding.T)[1].flip(1)[:, :rank]
    generator = torch.Generator().manual_seed(axis)
    more = torch.randn(len(vectors), max(0, rank - vectors.shape[1]), generator=generator, dtype=tensor.dtype)
    return torch.cat([vectors, more / math.sqrt(len(vectors))], 1)


def _contracted(tensor: Tensor, sides: list[Tensor], axis: int) -> Tensor:
    """Returns the tensor times the columns of all sides but one, summed over their axes: (size, rank)."""
    found = tensor.movedim(axis, 0)
    others = [side for place, side in enumerate(sides) if place != axis]
    found = torch.tensordot(found, others[-1], ([found.dim() - 1], [0]))  # (size, …, rank)
    for side in reversed(others[:-1]):
        found = (found * side).sum(-2)
    return found
