"""How good a network is, with labels or without."""

from penjing.data import Data
from penjing.graph import Graph
from penjing.tasks import agreement, evaluate


def metric_of(graph: Graph, original: Graph, data: Data) -> float:
    """Returns the task's metric on the validation data, or without labels the agreement with the original."""
    assert data.validation is not None
    metric = evaluate(graph, data.validation, data.task)
    return agreement(original, graph, data.validation, data.task) if metric is None else metric
