"""Single weights."""

from torch import Tensor

from penjing.pruning.granularities._registry import granularities


@granularities.register(source="Han et al., Learning both Weights and Connections, 2015", removes="weights")
def element(weight: Tensor) -> Tensor:
    """Single weights: each stands or falls alone, so that zeros may be anywhere."""
    return weight.reshape(-1, 1)
