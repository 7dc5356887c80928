"""How large a channel is."""

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
    """Mean magnitude of a unit's activations over samples and positions; the mean itself behind a ReLU."""
    return means(evidence, Tensor.abs)
