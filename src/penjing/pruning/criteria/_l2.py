"""Sum of squares."""

from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import Each, criteria


@criteria.register(source="Han et al., Learning both Weights and Connections, 2015", level="weight", finish=Tensor.sqrt)
def l2(evidence: Evidence) -> Each:
    """Euclidean norm: w², summed over a unit, and the root of it."""
    return Each(evidence, Tensor.square)
