"""Sum of magnitudes."""

from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import SaliencyOnAccess, criteria


@criteria.register(source="Li et al., Pruning Filters for Efficient ConvNets, 2017", level="weight")
def l1(evidence: Evidence) -> SaliencyOnAccess:
    """Magnitude: |w|, summed over a unit."""
    return SaliencyOnAccess(evidence, Tensor.abs)
