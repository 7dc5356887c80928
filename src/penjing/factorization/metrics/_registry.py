"""The table of metrics: how the errors of a layer's approximation count."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from penjing.evidence import Evidence
from penjing.factorization.layers import Layer
from penjing.factorization.weighting import Weighting
from penjing.graph import Graph
from penjing.registry import Entry, Registry


@dataclass(frozen=True)
class Goal:
    """What an approximation of a layer should come near.

    Attributes:
        weighting: the weight and how errors count.
        outputs: mean of the outputs that the layer should give, without its bias, (out,); None leaves the bias as it is.
        inputs: mean of the columns that the approximation will see, (in · kernel,).
    """

    weighting: Weighting
    outputs: Tensor | None = None
    inputs: Tensor | None = None

    def moved(self, approximated: Tensor) -> Tensor | None:
        """Returns what is to be added to the bias so that the mean of the outputs stays; None where it isn't known."""
        if self.outputs is None or self.inputs is None:
            return None
        return self.outputs - approximated.flatten(1) @ self.inputs


class ErrorMetric(ABC):
    """How errors count, for all layers of a graph."""

    @abstractmethod
    def begin(self, evidence: Evidence, layers: Sequence[Layer]) -> None:
        """Looks at the original and the data; called once, before any layer is approximated.

        Raises:
            PenjingError: there are no data, or a layer gives too many values.
        """

    @abstractmethod
    def goal(self, layer: Layer, small: Graph) -> Goal:
        """Returns what the approximation of a layer should come near.

        Args:
            layer: of the original.
            small: the network as it stands: all layers in front of this one are approximated already.
        """


def begin(metric: ErrorMetric, evidence: Evidence, layers: Sequence[Layer]) -> None:
    """Lets a metric look at all layers but tables: an embedding multiplies nothing."""
    metric.begin(evidence, [layer for layer in layers if not layer.is_table])


def goal(metric: ErrorMetric, layer: Layer, graph: Graph, small: Graph) -> Goal:
    """Returns what the approximation of a layer should come near; of a table, its values.

    Args:
        metric: which has begun.
        layer: of `graph`.
        graph: the original.
        small: see `ErrorMetric.goal`.
    """
    return Goal(Weighting(layer.matrix(graph))) if layer.is_table else metric.goal(layer, small)


@dataclass(frozen=True, kw_only=True)
class MetricEntry(Entry[type[ErrorMetric]]):
    """A registered metric: `register` decorates its class."""


metrics = Registry("metric", MetricEntry)
