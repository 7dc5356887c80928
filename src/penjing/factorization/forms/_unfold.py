"""Factors as products of matrices with unfolded inputs."""

from collections.abc import Sequence

from penjing.factorization.decompositions import FactorLayer
from penjing.factorization.forms._registry import forms
from penjing.graph import Graph
from penjing.graph.edit.kernels import unfold_kernel


@forms.register(
    source="Chellapilla, Puri, Simard, High Performance Convolutional Neural Networks for Document Processing, 2006 (unfolding)",
    grouped=False,
)
def unfold(graph: Graph, weights: Sequence[str], factors: Sequence[FactorLayer]) -> None:
    """Each factor with a kernel unfolds its input once; the rest are products of matrices."""
    for name, factor in zip(weights, factors, strict=True):
        if any(size > 1 for size in factor.weight.shape[2:]):
            unfold_kernel(graph, name)
