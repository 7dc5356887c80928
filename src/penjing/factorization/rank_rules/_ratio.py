"""Ranks as a share of the highest ones."""

from collections.abc import Sequence

from penjing.factorization.decompositions import Decomposition
from penjing.factorization.rank_rules._registry import rank_rules
from penjing.factorization.weighting import Weighting
from penjing.registry import OwnNumber


@rank_rules.register(
    source="practice", number=OwnNumber("share of the highest ranks", default=0.5, lowest=0.0, highest=1.0, above=True)
)
def ratio(decomposition: Decomposition, weighting: Weighting, stride: Sequence[int], share: float) -> tuple[int, ...]:
    """This share of the highest ranks; of the channels in decompositions whose ranks can be higher than these."""
    return decomposition.alike(tuple(weighting.weight.shape), share)
