"""Sum of squares."""

from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import SaliencyOnAccess, criteria


@criteria.register(source="Han et al., Learning both Weights and Connections, 2015", level="weight", finish=Tensor.sqrt)
def l2(evidence: Evidence) -> SaliencyOnAccess:
    """Euclidean norm: the square root of w², summed over a unit."""
    return SaliencyOnAccess(evidence, Tensor.square)
