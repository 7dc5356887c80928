"""Ranks by the share of the multiplications that they save."""

import math
from collections.abc import Sequence

from penjing.factorization.decompositions import Decomposition
from penjing.factorization.rank_rules._registry import rank_rules
from penjing.factorization.weighting import Weighting
from penjing.registry import OwnNumber

HALVINGS = 40  # of the range of shares: finer than one rank of any layer


@rank_rules.register(
    source="closed form for Tucker-2 with equal ranks: `penjing.factorization.k_max`",
    number=OwnNumber("factor by which multiplications fall", default=2.0, lowest=1.0, above=True),
    at_most=True,
    by_shape=True,
)
def speedup(decomposition: Decomposition, weighting: Weighting, stride: Sequence[int], times: float) -> tuple[int, ...]:
    """The highest ranks, the same share on all sides, with which a layer has this many times fewer multiplications.

    Where even ranks of 1 have more, ranks of 1.
    """
    shape = tuple(weighting.weight.shape)
    allowed = math.prod(shape) / times
    low, high = 0.0, float(max(shape))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        ranks = decomposition.within(shape, decomposition.alike(shape, middle))
        low, high = (middle, high) if decomposition.cost(shape, ranks, stride) <= allowed else (low, middle)
    return decomposition.within(shape, decomposition.alike(shape, low))


def k_max(n: float = 1.0, positions: int = 9, m: float = 2.0) -> float:
    """Returns the highest share k of the input channels for both ranks of Tucker-2 that saves a factor m.

    With C_out = n · C_in, ranks R = k · C_in on both sides, and K_H · K_W positions of the kernel, the multiplications of the
    three layers, k·C_in² + k²·C_in²·positions + k·n·C_in², are 1/m of the layer's n·C_in²·positions for
    k = ½ · (-(n + 1)/positions + √(((n + 1)/positions)² + 4·n/m)). The stride is 1.

    Args:
        n: output channels over input channels.
        positions: positions of the kernel, 9 for 3×3.
        m: the factor by which multiplications are to fall.
    """
    linear = (n + 1) / positions
    return 0.5 * (-linear + math.sqrt(linear**2 + 4 * n / m))
