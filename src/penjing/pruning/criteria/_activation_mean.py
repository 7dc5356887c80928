"""How large a channel's activations are."""

from torch import Tensor

from penjing.evidence import Evidence
from penjing.evidence.feature_maps import means
from penjing.pruning.criteria._registry import criteria


@criteria.register(
    source="Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2017",
    needs={"data"},
    level="unit",
)
def activation_mean(evidence: Evidence) -> list[Tensor]:
    """Mean magnitude of a unit's activations over samples and positions; behind a ReLU this is their mean."""
    return means(evidence, Tensor.abs)
