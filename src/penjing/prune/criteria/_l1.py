"""Sum of magnitudes."""

from torch import Tensor

from penjing.prune.criteria._registry import Each, criteria
from penjing.prune.evidence import Evidence


@criteria.register(source="Li et al., Pruning Filters for Efficient ConvNets, 2017", level="weight")
def l1(evidence: Evidence) -> Each:
    """Magnitude: |w|, summed over a unit."""
    return Each(evidence, Tensor.abs)
