"""Errors of the weights themselves."""

from collections.abc import Sequence

from penjing.evidence import Evidence
from penjing.factorization.layers import Layer
from penjing.factorization.metrics._registry import ErrorMetric, Goal, metrics
from penjing.factorization.weighting import Weighting
from penjing.graph import Graph


@metrics.register(source="Eckart and Young, 1936 (Frobenius norm)", name="weights")
class OfWeights(ErrorMetric):
    """The squared differences of the weights; needs no data."""

    def begin(self, evidence: Evidence, layers: Sequence[Layer]) -> None:
        """Takes the graph."""
        self._graph = evidence.graph

    def goal(self, layer: Layer, small: Graph) -> Goal:
        """Returns the weight as it is."""
        return Goal(Weighting(layer.matrix(self._graph)))
