"""How good a network is, with labels or without."""

import math
from collections.abc import Callable

from penjing.budget import Drop
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.tasks import agreement, evaluate, likeness


def metric_of(graph: Graph, original: Graph, data: Data) -> float:
    """Returns the task's metric on the validation data; without labels, the agreement with the original."""
    assert data.validation is not None
    metric = evaluate(graph, data.validation, data.task)
    return agreement(original, graph, data.validation, data.task) if metric is None else metric


def least(graph: Graph, data: Data, drop: Drop, told: Callable[[str], None]) -> float:
    """Returns the least metric that is allowed; without labels, tells the measure by which networks are compared.

    Args:
        graph: the network with which others are compared.
        data: data with a validation part, on which networks are judged.
        drop: how far the metric may fall, or which share of it may be lost.
        told: called with a line about the measure.

    Raises:
        PenjingError: the metric can't fall: it isn't a finite number, or the network answers every input alike.
    """
    assert data.validation is not None
    metric = metric_of(graph, graph, data)
    limit = metric - drop.of(metric)
    if not math.isfinite(limit):
        raise PenjingError(
            f"drop={drop}: the {data.task.metric_name} of the graph given isn't a finite number, so it can't fall."
        )
    if not data.task.labelled:
        alike = likeness(graph, graph, data.validation, data.task)
        if alike.constant >= 1:
            raise PenjingError(
                f"drop={drop} would protect nothing: the graph given answers every input of the validation data alike. Give "
                "data on which its answers differ."
            )
        told(f"Without labels, agreement with the graph given stands in for the metric: {alike.measure}.")
    return limit
