"""Kernels: the weights that lead from one input channel to one output channel."""

from torch import Tensor

from penjing.pruning.granularities._registry import granularities


@granularities.register(
    source="Mao et al., Exploring the Regularity of Sparse Structure in Convolutional Neural Networks, 2017",
    removes="weights",
    kernels=True,
)
def kernel(weight: Tensor) -> Tensor | None:
    """Kernels: the k×k slice from one input channel to one output channel stands or falls together."""
    return weight.flatten(2).flatten(0, 1) if weight.dim() > 2 else None
