"""Positions within the kernels of a layer."""

from torch import Tensor

from penjing.prune.granularities._registry import granularities


@granularities.register(
    source="Anwar et al., Structured Pruning of Deep Convolutional Neural Networks, 2017", removes="weights"
)
def pattern(weight: Tensor) -> Tensor | None:
    """Patterns: one position of the kernel, in all kernels of a layer, stands or falls together."""
    window = weight.shape[2:].numel()
    return weight.reshape(-1, window).T if weight.dim() > 2 and window > 1 else None
