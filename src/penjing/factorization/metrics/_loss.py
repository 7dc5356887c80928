"""Errors of the layers' outputs as the loss feels them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.gram import WHOLE
from penjing.factorization.layers import Layer
from penjing.factorization.metrics._outputs import OfOutputs
from penjing.factorization.metrics._registry import Goal, metrics
from penjing.factorization.weighting import with_ridge
from penjing.graph import Graph
from penjing.graph.ops import CONVOLUTIONS

FLOOR = 0.1  # least weight of an output's error, relative to the mean: a direction of no slope today isn't free


@metrics.register(
    source="Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature, 2015 (the Gauss-Newton "
    "matrix as a product)",
    needs={"data", "labels"},
    name="loss",
)
class OfLoss(OfOutputs):
    """As outputs, each direction of the outputs weighted by the squared slope of the task's loss along it."""

    def begin(self, evidence: Evidence, layers: Sequence[Layer]) -> None:
        """Finds the inputs' covariance and, in another pass, the second moments of the slopes at the outputs.

        Raises:
            PenjingError: a layer gives so many values that the matrix of their slopes would take too much memory.
        """
        for layer in layers:
            if layer.shape[0] > WHOLE:
                raise PenjingError(
                    f"{layer.path} gives {layer.shape[0]:,} values, and metric='loss' takes at most {WHOLE:,}: leave it out "
                    "with exclude=…, or use metric='outputs'."
                )
        super().begin(evidence, layers)
        nodes = {node.name: (layer, node.target in CONVOLUTIONS) for layer in layers for node in layer.nodes}
        sums: dict[str, Tensor] = {}
        for _, slopes in evidence.slopes(list(nodes)):
            for name, slope in slopes.items():
                layer, convolved = nodes[name]
                rows = slope.movedim(1, -1) if convolved else slope
                flat = rows.reshape(-1, layer.shape[0]).double()
                sums[layer.weight.name] = sums.get(layer.weight.name, torch.zeros(1, dtype=flat.dtype)) + flat.T @ flat
        self._outer = {name: with_ridge(found.cpu(), FLOOR) for name, found in sums.items()}

    def goal(self, layer: Layer, small: Graph) -> Goal:
        """Returns the weight with the covariance of its inputs and the curvature at its outputs."""
        goal = super().goal(layer, small)
        outer = self._outer[layer.weight.name]
        scaled = outer / outer.diagonal().mean()
        return replace(goal, weighting=replace(goal.weighting, outer=scaled))
