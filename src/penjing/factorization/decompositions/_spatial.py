"""A convolution along the one axis of the kernel, then one along the other."""

from torch import Tensor

from penjing.factorization.decompositions._registry import (
    Decomposition,
    FactorLayer,
    FactorShape,
    Ranks,
    Shape,
    decompositions,
)
from penjing.factorization.split import spectrum, split
from penjing.factorization.weighting import Weighting


@decompositions.register(
    source="Jaderberg, Vedaldi, Zisserman, Speeding up Convolutional Neural Networks with Low Rank Expansions, 2014",
    name="spatial",
)
class Spatial(Decomposition):
    """Two layers: a k×1 convolution, then a 1×k convolution."""

    def unfit(self, shape: Shape) -> str:
        """The kernel must have two axes, neither of size 1."""
        return "" if len(shape) == 4 and min(shape[2:]) > 1 else "no window"

    def full(self, shape: Shape) -> Ranks:
        """Returns the smaller side of the matrix (out · width, in · height)."""
        outs, ins, height, width = shape
        return (min(ins * height, outs * width),)

    def shapes(self, shape: Shape, ranks: Ranks) -> list[FactorShape]:
        """Returns (rank, in, height, 1) and (out, rank, 1, width)."""
        outs, ins, height, width = shape
        return [FactorShape((ranks[0], ins, height, 1), (0,)), FactorShape((outs, ranks[0], 1, width), (1,))]

    def spectra(self, weighting: Weighting) -> tuple[Tensor, ...]:
        """Returns the singular values of the matrix (out · width, in · height)."""
        return (spectrum(_matrix(weighting.weight), weighting.marginal(0, 1), _outer(weighting)),)

    def factors(self, weighting: Weighting, ranks: Ranks) -> list[FactorLayer]:
        """Cuts the singular values behind the rank."""
        outs, ins, height, width = weighting.weight.shape
        found = split(_matrix(weighting.weight), ranks[0], weighting.marginal(0, 1), _outer(weighting))
        first = found.first.reshape(ranks[0], ins, height, 1)
        last = found.last.reshape(outs, width, ranks[0]).transpose(1, 2).unsqueeze(2)
        return [FactorLayer(first, (0,)), FactorLayer(last, (1,))]


def _matrix(weight: Tensor) -> Tensor:
    outs, ins, height, width = weight.shape
    return weight.permute(0, 3, 1, 2).reshape(outs * width, ins * height)


def _outer(weighting: Weighting) -> Tensor | None:
    """Returns how the partial outputs' errors count: as those of the outputs, whatever the place in the kernel."""
    outs, _, _, width = weighting.weight.shape
    if weighting.outer is None:
        return None
    eye = weighting.outer.new_zeros(width, width).fill_diagonal_(1.0)
    return (weighting.outer[:, None, :, None] * eye[None, :, None, :]).reshape(outs * width, outs * width)
