"""Sum of magnitudes."""

from torch import Tensor

from penjing.prune.criteria._registry import criteria, makers
from penjing.prune.evidence import Evidence


@criteria.register(source="Li et al., Pruning Filters for Efficient ConvNets, 2017", level="weight")
def l1(evidence: Evidence) -> dict[str, Tensor]:
    """Magnitude: |w|, summed over a unit."""
    return {name: weight.abs() for name, weight in makers(evidence).items()}
