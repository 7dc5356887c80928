"""How training went, epoch by epoch: curves of the loss and of the metric."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penjing.report import _format
from penjing.report._headline import is_share, metric_title, shown_metric
from penjing.report._scatter import Chart, Point, scatter

ROOM = 0.08  # of the range of values, above and below a curve
FEWEST = 2  # epochs that make a curve


@dataclass(frozen=True)
class Curve:
    """A number by epoch.

    Attributes:
        name: what the number is.
        chart: its dots, in the chart's units.
        last: the number of the last epoch as text.
    """

    name: str
    chart: Chart
    last: str


def curves(report: Mapping[str, Any]) -> list[Curve]:
    """Returns the curves that a report's epochs make: the loss, and the metric where it was judged."""
    epochs = report.get("training_epochs") or []
    losses = [(epoch["number"], epoch["loss"]) for epoch in epochs]
    metrics = [(epoch["number"], shown_metric(report, epoch.get("metric"))) for epoch in epochs]
    share = is_share(*(value for _, value in metrics))
    found = (
        _curve(losses, "Loss", _format.plain),
        _curve(metrics, f"{metric_title(report)}, validation", _percent if share else _format.plain),
    )
    return [one for one in found if one is not None]


def _curve(values: Sequence[tuple[int, float | None]], name: str, shown: Callable[[float], str]) -> Curve | None:
    """Returns the curve of a number by epoch; None where too few epochs have it."""
    known = {epoch: value for epoch, value in values if value is not None and math.isfinite(value)}
    if len(known) < FEWEST:
        return None
    least, most = min(known.values()), max(known.values())
    room = ROOM * (most - least) or ROOM * abs(most) or 1.0
    dots = [
        Point(epoch, value, epoch, met=True, taken=False, said=f"epoch {epoch}: {shown(value)}")
        for epoch, value in sorted(known.items())
    ]
    chart = scatter(dots, (min(known), max(known)), (least - room, most + room), _whole, shown)
    return Curve(name, chart, shown(known[max(known)]))


def _percent(value: float) -> str:
    return f"{100 * value:.4g} %"


def _whole(number: float) -> str:
    """Writes an epoch's number; ticks between two epochs stay empty."""
    return f"{number:,.0f}" if number == round(number) else ""
