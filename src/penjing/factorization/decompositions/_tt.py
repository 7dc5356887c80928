"""The tensor train: the weight's axes in a row, each tied to the next one by a few values."""

import torch
from torch import Tensor

from penjing.factorization.decompositions._registry import (
    Decomposition,
    FactorLayer,
    FactorShape,
    Ranks,
    Shape,
    along,
    composed,
    decompositions,
    features,
)
from penjing.factorization.split import spectrum, split
from penjing.factorization.weighting import Weighting, with_ridge


@decompositions.register(
    source="Oseledets, Tensor-Train Decomposition, 2011; for convolutions: Garipov et al., Ultimate Tensorization, 2016",
    name="tt",
)
class TensorTrain(Decomposition):
    """A 1×1 convolution, a convolution along each axis of the kernel, and a 1×1 convolution back."""

    def unfit(self, shape: Shape) -> str:
        """There must be a kernel; a matrix has a singular value decomposition."""
        return "no window" if all(size == 1 for size in shape[2:]) else ""

    def full(self, shape: Shape) -> Ranks:
        """Returns, for each cut of the row (in, *kernel, out), the smaller product of sizes on its two sides."""
        row = (shape[1], *shape[2:], shape[0])
        found, kept = [], 1
        for place in range(1, len(row)):
            before = kept * row[place - 1]
            behind = int(torch.Size(row[place:]).numel())
            kept = min(before, behind)
            found.append(kept)
        return tuple(found)

    def limits(self, shape: Shape, ranks: Ranks) -> Ranks:
        """Returns the highest ranks: each is at most the one in front of it times the size of the axis between them."""
        most = self.full(shape)
        return (
            most[0],
            *(min(full, rank * size) for full, rank, size in zip(most[1:], ranks[:-1], shape[2:], strict=True)),
        )

    def alike(self, shape: Shape, share: float) -> Ranks:
        """Returns the same share of the channels in every place: the middle ones could be higher, at a high cost."""
        most = self.full(shape)
        wanted = max(1, round(share * min(shape[0], shape[1])))
        return tuple(min(wanted, full) for full in most)

    def shapes(self, shape: Shape, ranks: Ranks) -> list[FactorShape]:
        """Returns (rank, in), a kernel between ranks for each axis, and (out, rank)."""
        outs, ins, *window = shape
        ones = [1] * len(window)
        kernels = [
            FactorShape((ranks[axis + 1], ranks[axis], *along(window, axis)), (axis,)) for axis in range(len(window))
        ]
        return [FactorShape((ranks[0], ins, *ones), ()), *kernels, FactorShape((outs, ranks[-1], *ones), ())]

    def spectra(self, weighting: Weighting) -> tuple[Tensor, ...]:
        """Returns the singular values of the unfolding at each cut."""
        weight = weighting.weight
        found = []
        for cut in range(weight.dim() - 1):
            axes = tuple(range(cut + 1))
            first = (
                weight.movedim(0, -1).flatten(0, cut).flatten(1)
            )  # (in and the kernel's axes up to here, the others)
            outer = weighting.outer if cut == weight.dim() - 2 else None
            found.append(spectrum(first.T, weighting.marginal(*axes), outer))
        return tuple(found)

    def factors(self, weighting: Weighting, ranks: Ranks) -> list[FactorLayer]:
        """Cuts one axis after the other from the row (in, *kernel, out)."""
        weight = weighting.weight
        outs, ins, *window = weight.shape
        ones = [1] * len(window)
        found = split(weight.movedim(0, -1).reshape(ins, -1).T, ranks[0], weighting.marginal(0))  # (kernel · out, in)
        factors = [FactorLayer(found.first.reshape(ranks[0], ins, *ones), ())]
        for axis, size in enumerate(window):
            rank, behind = ranks[axis + 1], axis == len(window) - 1
            # from (this axis · others · out, rank) to a map from (rank · this axis) to (others · out)
            rest = found.last.reshape(size, -1, ranks[axis]).permute(1, 2, 0).flatten(1)
            found = split(rest, rank, _gram(weighting, factors, axis, size), weighting.outer if behind else None)
            factors.append(FactorLayer(found.first.reshape(rank, ranks[axis], *along(window, axis)), (axis,)))
        return [*factors, FactorLayer(found.last.reshape(outs, ranks[-1], *ones), ())]


def _gram(weighting: Weighting, factors: list[FactorLayer], axis: int, size: int) -> Tensor | None:
    """Returns how the values vary that a kernel along the next axis reads behind these factors."""
    channels = weighting.marginal(*range(axis + 2))
    if channels is None:
        return None
    seen = features(composed(factors), axis, size).flatten(1)
    return with_ridge(seen @ channels @ seen.T)
