"""The confidence from which on a sample leaves: what each threshold would do, and the cheapest that keeps the metric."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from penjing.adaptive.exits import Point, confidence, left
from penjing.data import Data
from penjing.graph import Graph
from penjing.tasks import moved, run_on

TRIED = (
    200  # thresholds: the confidences' quantiles, so that between two neighbours half a percent of the samples differ
)


def answers(graph: Graph, data: Data) -> list[tuple[Tensor, Any]]:
    """Returns the logits of all exits, `(exits + 1, N, classes)`, and the targets, of each batch of the validation data."""
    device, found = next(graph.parameters()).device, []
    assert data.validation is not None
    with torch.no_grad():
        for batch in data.validation:
            inputs, targets = data.task.split(batch)
            found.append((torch.stack(list(run_on(graph, moved(inputs, device)))).cpu(), targets))
    return found


def metric_at(
    found: Sequence[tuple[Tensor, Any]], data: Data, threshold: float | None
) -> tuple[float, tuple[float, ...]]:
    """Returns the metric at a threshold, and the shares of the samples that leave at each exit and at the end."""
    metric, counts = data.task.metric(), torch.zeros(len(found[0][0]))
    for logits, targets in found:
        answered, place = left(logits, threshold)
        metric.update(answered, targets)
        counts += torch.bincount(place, minlength=len(counts))
    return float(metric.compute()), tuple((counts / counts.sum()).tolist())


def curve(found: Sequence[tuple[Tensor, Any]], data: Data, until: Sequence[float]) -> tuple[Point, ...]:
    """Returns what thresholds do, from low to high.

    Args:
        found: of `answers`.
        data: gives the metric.
        until: milliseconds from the inputs to each exit and to the end.
    """
    confidences = torch.cat([confidence(logits[:-1]).flatten() for logits, _ in found])
    tried = confidences.quantile(torch.linspace(0, 1, TRIED), interpolation="nearest").unique().tolist()
    points = []
    for threshold in tried:
        metric, shares = metric_at(found, data, threshold)
        latency = sum(share * time for share, time in zip(shares, until, strict=True))
        points.append(Point(threshold, metric, latency, shares))
    return tuple(points)


def cheapest(points: Sequence[Point], least: float) -> Point | None:
    """Returns the point of the least latency whose metric is at least `least`; None if there is none."""
    kept = [point for point in points if point.metric >= least]
    return min(kept, key=lambda point: (point.latency_ms, -point.metric), default=None)
