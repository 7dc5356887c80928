"""Positions within the kernels of a layer."""

from collections.abc import Collection

from torch import Tensor

from penjing.graph import Graph
from penjing.graph.edit.kernels import kernels, shrink_kernels
from penjing.pruning.granularities._registry import granularities


def shrunk(graph: Graph, names: Collection[str]) -> tuple[Graph, dict[str, str]]:
    """Returns a graph without the kernel positions that masks prune in a whole layer, and what became of each weight."""
    found = [kernel for kernel in kernels(graph) if kernel.weight in names]
    return shrink_kernels(graph, found=found), {kernel.weight: kernel.described() for kernel in found}


@granularities.register(
    source="Anwar et al., Structured Pruning of Deep Convolutional Neural Networks, 2017",
    removes="weights",
    kernels=True,
    shrink=shrunk,
)
def pattern(weight: Tensor) -> Tensor | None:
    """Patterns: one position of the kernel, in all kernels of a layer, stands or falls together; kernels get smaller.

    The scores alone decide which positions stay. Positions that fill a grid become a smaller kernel; others become a gather
    and one matrix product.
    """
    window = weight.shape[2:].numel()
    return weight.reshape(-1, window).T if weight.dim() > 2 and window > 1 else None
