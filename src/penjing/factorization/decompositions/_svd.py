"""The singular value decomposition of the flattened weight."""

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
    source="Denton et al., Exploiting Linear Structure Within Convolutional Networks, 2014; Zhang et al., Accelerating Very "
    "Deep Convolutional Networks, 2016",
    name="svd",
)
class Svd(Decomposition):
    """Two layers: the layer with fewer outputs, then a 1×1 convolution or a linear layer."""

    def unfit(self, shape: Shape) -> str:
        """Every weight is a matrix, once it is flattened; one of a single row or column has no lower rank."""
        return "rank one" if self.full(shape)[0] < 2 else ""

    def full(self, shape: Shape) -> Ranks:
        """Returns the smaller side of the matrix (out, in · kernel)."""
        return (min(shape[0], _rest(shape)),)

    def shapes(self, shape: Shape, ranks: Ranks) -> list[FactorShape]:
        """Returns (rank, in, *kernel) and (out, rank)."""
        axes = tuple(range(len(shape) - 2))
        return [FactorShape((ranks[0], *shape[1:]), axes), FactorShape((shape[0], ranks[0], *[1] * len(axes)), ())]

    def spectra(self, weighting: Weighting) -> tuple[Tensor, ...]:
        """Returns the singular values of the matrix."""
        return (spectrum(weighting.flat, weighting.ridged, weighting.outer),)

    def factors(self, weighting: Weighting, ranks: Ranks) -> list[FactorLayer]:
        """Cuts the singular values behind the rank."""
        found = split(weighting.flat, ranks[0], weighting.ridged, weighting.outer)
        shape = weighting.weight.shape
        axes = tuple(range(len(shape) - 2))
        first = found.first.reshape(ranks[0], *shape[1:])
        return [FactorLayer(first, axes), FactorLayer(found.last.reshape(*found.last.shape, *[1] * len(axes)), ())]


def _rest(shape: Shape) -> int:
    size = 1
    for side in shape[1:]:
        size *= side
    return size
