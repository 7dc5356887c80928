"""Sum of magnitudes."""

from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import Each, criteria


@criteria.register(source="Li et al., Pruning Filters for Efficient ConvNets, 2017", level="weight")
def l1(evidence: Evidence) -> Each:
    """Magnitude: |w|, summed over a unit."""
    return Each(evidence, Tensor.abs)
