"""Errors of the layers' outputs on calibration data."""

from collections.abc import Sequence

import torch

from penjing.evidence import Evidence
from penjing.evidence.gram import LayerProduct, column_moments, paired_moments, products
from penjing.factorization.layers import Layer
from penjing.factorization.metrics._registry import ErrorMetric, Goal, metrics
from penjing.factorization.weighting import Weighting, plus_identity, solved
from penjing.graph import Graph

PULL = (
    1e-3  # strength that pulls a weight for changed inputs to the original one, relative to the inputs' mean variance
)


@metrics.register(
    source="Zhang et al., Accelerating Very Deep Convolutional Networks for Classification and Detection, 2016 (linear case)",
    needs={"data"},
    name="outputs",
)
class OfOutputs(ErrorMetric):
    """The squared differences of each layer's outputs on calibration data, all layers in front being the original's."""

    def begin(self, evidence: Evidence, layers: Sequence[Layer]) -> None:
        """Finds the covariance of what each weight multiplies, in one pass."""
        self._graph = evidence.graph
        self._layers = multiplied(evidence, layers)
        self._moments = column_moments(evidence, [one for own in self._layers.values() for one in own])

    def goal(self, layer: Layer, small: Graph) -> Goal:
        """Returns the weight with the covariance of its inputs."""
        weight, moments = layer.matrix(self._graph), self._moments[layer.weight.name]
        return Goal(Weighting(weight, moments.covariance), weight.flatten(1) @ moments.mean, moments.mean)


@metrics.register(
    source="Zhang et al., Accelerating Very Deep Convolutional Networks for Classification and Detection, 2016 (asymmetric "
    "reconstruction)",
    needs={"data"},
    name="asymmetric",
)
class OfOutputsBehindErrors(ErrorMetric):
    """As outputs, with inputs from the layers approximated before: each layer makes up for the errors in front of it."""

    def begin(self, evidence: Evidence, layers: Sequence[Layer]) -> None:
        """Takes the graph and the data; each layer needs a pass of its own."""
        self._evidence = evidence
        self._layers = multiplied(evidence, layers)

    def goal(self, layer: Layer, small: Graph) -> Goal:
        """Returns the weight that gives, from the changed inputs, the original outputs as nearly as it can."""
        weight = layer.matrix(self._evidence.graph)
        found = paired_moments(self._evidence, small, self._layers[layer.weight.name])
        gram, matrix = found.changed.covariance, weight.flatten(1)
        pull = PULL * float(gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny))
        # W (cross + pull·I) (gram + pull·I)⁻¹, written such that W itself isn't divided by anything
        fitted = matrix + solved(matrix @ found.cross - matrix @ gram, plus_identity(gram, pull))
        return Goal(Weighting(fitted.reshape(weight.shape), gram), matrix @ found.mean, found.changed.mean)


def multiplied(evidence: Evidence, layers: Sequence[Layer]) -> dict[str, list[LayerProduct]]:
    """Returns the products of each weight with its input's columns."""
    return products(evidence, [layer.weight.name for layer in layers])
