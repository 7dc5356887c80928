"""Large layers lose a larger share of their units than small ones."""

import math
from collections.abc import Sequence

from torch import Tensor

from penjing.pruning.allocations._registry import Rounding, Scored, allocations, rounded
from penjing.pruning.allocations._spread import spread


@allocations.register(
    source="after Han et al., Learning both Weights and Connections, 2015: rates by layer, here by the layers' sizes"
)
def layer_share(
    scores: Sequence[Tensor], amount: float, rounding: Rounding, places: Sequence[Scored] = ()
) -> list[int]:
    """A layer loses a share proportional to in / largest in + out / largest out, the larger the matrix, the more.

    "in" and "out" are the sizes of the layer's weight, the largest ones those of all layers that lose units. A layer that
    would lose all of its units keeps one, and the others lose the rest. The amount is the share of all units together.
    """
    sizes = [len(score) for score in scores]
    shapes = [place.shape for place in places] or [(size,) for size in sizes]
    ins, outs = [math.prod(shape[1:2]) for shape in shapes], [shape[0] for shape in shapes]
    shares = [wide / max(ins) + tall / max(outs) for wide, tall in zip(ins, outs, strict=True)]
    most = [size - 1 for size in sizes]
    total = min(math.floor(amount * sum(sizes) + 0.5), sum(most))
    gone = spread([size * share for size, share in zip(sizes, shares, strict=True)], most, total, 0)
    return [rounded(size - one, size, rounding) for size, one in zip(sizes, gone, strict=True)]
