"""What changed in the answers: the metric with its interval, each class, samples whose answer changed, and confidence."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penjing.report import _format
from penjing.report._headline import is_share, metric_title
from penjing.report._scatter import Chart, Point, scatter

CERTAIN = 0.05  # a change that chance alone makes less often than this is more than chance
# The only addresses from which the page takes images: they hold the image itself.
_IMAGE = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/]+=*")
_KINDS = {"lost": "wrong now", "gained": "right now", "other": "wrong both times", "changed": "changed"}


@dataclass(frozen=True)
class ClassRow:
    """One class, in words: its shares of right answers, the change with its interval, and whether it is beyond chance."""

    name: str
    samples: str
    before: str
    after: str
    change: str
    clear: bool


@dataclass(frozen=True)
class SampleCard:
    """One sample whose answer changed, in words; its image is an address that holds the image itself."""

    kind: str
    lost: bool
    named: str
    label: str | None
    before: str
    after: str
    image: str | None
    text: str | None


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy of both networks, in the units of a chart; a bin is a dot."""

    chart: Chart
    before: Sequence[Point]
    after: Sequence[Point]
    errors: tuple[str, str]


@dataclass(frozen=True)
class Changes:
    """All that the page tells of changed answers."""

    sentences: str
    classes: Sequence[ClassRow]
    samples: Sequence[SampleCard]
    changed: int
    reliability: Reliability | None
    missing: Sequence[str]


def changes(report: Mapping[str, Any]) -> Changes | None:
    """Returns what the page tells; None where the answers weren't compared."""
    told = report.get("changes")
    if not told:
        return None
    return Changes(
        " ".join(_sentences(report, told, _are_shares(told))),
        [_class(row) for row in told.get("classes") or ()],
        [_card(one) for one in told.get("shown") or ()],
        told.get("changed") or 0,
        _reliability(told.get("calibration_before"), told.get("calibration_after")),
        told.get("missing") or [],
    )


def interval(report: Mapping[str, Any]) -> str:
    """Returns the interval of the metric's change in brackets; "" where it isn't known."""
    told = report.get("changes") or {}
    change = told.get("change")
    if change is None:
        return ""
    shares = _are_shares(told)
    _, low, high = _shown(report, change)
    return f" ({_amount(low, shares)} to\u00a0{_amount(high, shares)})"


def is_chance(report: Mapping[str, Any]) -> bool:
    """Tells whether chance alone may have made the change: by the exact test, or, without one, where the interval holds 0.

    An interval is an approximation, and may contradict the test by a hair; so the test alone decides wherever it is told.
    """
    told = report.get("changes") or {}
    change, chance = told.get("change"), told.get("chance")
    if change is not None and chance is not None:
        return bool(chance >= CERTAIN)
    return change is not None and change["low"] <= 0 <= change["high"]


def layer_noise(report: Mapping[str, Any]) -> dict[str, float]:
    """Returns by how many decibels a layer's signal stands above its noise, by the layer's name."""
    rows = (report.get("changes") or {}).get("layers") or ()
    return {row["path"]: row["signal_to_noise_db"] for row in rows}


def _are_shares(told: Mapping[str, Any]) -> bool:
    return is_share(*(one["value"] for side in ("before", "after") if (one := told.get(side))))


def _sentences(report: Mapping[str, Any], told: Mapping[str, Any], shares: bool) -> list[str]:
    samples = f"{told['samples']:,} sample{'' if told['samples'] == 1 else 's'}"
    found = []
    if change := told.get("change"):
        unit = " points" if shares else ""
        value, low, high = (_amount(end, shares) for end in _shown(report, change))
        found.append(
            f"{metric_title(report)} changed by {value}{unit} on {samples}; with 95 % certainty, the change on all such samples "
            f"is between {low} and {high}{unit}."
        )
    if (changed := told.get("changed")) is not None:
        found.append(f"{changed:,} of {samples} {'is' if changed == 1 else 'are'} answered differently" + _sides(told))
    if change and told.get("chance") is not None:
        found.append("A change of this size may well be chance." if is_chance(report) else "That is more than chance.")
    return found


def _shown(report: Mapping[str, Any], change: Mapping[str, float]) -> tuple[float, float, float]:
    """Returns a change and the ends of its interval as people are shown them; a rise of an error is above 0."""
    value, low, high = (change[end] for end in ("value", "low", "high"))
    return (0 - value, 0 - high, 0 - low) if report.get("lower_is_better") else (value, low, high)


def _sides(told: Mapping[str, Any]) -> str:
    lost, gained = told.get("lost"), told.get("gained")
    if lost is None or gained is None:
        return "."
    return f": {lost:,} that {'was' if lost == 1 else 'were'} right, {gained:,} that {'is' if gained == 1 else 'are'} right now."


def _amount(value: float, shares: bool) -> str:
    return _format.signed(100 * value) if shares else ("+" if value > 0 else "") + _format.plain(value)


def _class(row: Mapping[str, Any]) -> ClassRow:
    change = row["change"]
    value, low, high = (_format.signed(100 * change[end]) for end in ("value", "low", "high"))
    value = "0.0" if value in ("+0.0", "−0.0") else value
    return ClassRow(
        row["name"], f"{row['samples']:,}", _format.percent(row["before"]["value"]),
        _format.percent(row["after"]["value"]), f"{value} ({low} to {high})", bool(row["clear"]),
    )  # fmt: skip


def _card(one: Mapping[str, Any]) -> SampleCard:
    image = one.get("image")
    return SampleCard(
        _KINDS.get(one["kind"], "changed"),
        one["kind"] == "lost",
        one.get("file") or f"sample {one['index']:,}",
        one.get("label"),
        f"{one['before']} ({_format.percent(one['before_confidence'])})",
        f"{one['after']} ({_format.percent(one['after_confidence'])})",
        image if image and _IMAGE.fullmatch(image) else None,
        one.get("text"),
    )


def _reliability(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Reliability | None:
    if not before or not after:
        return None
    dots = [
        Point(
            one["confidence"], one["accuracy"], 0, side is after, False,
            f"{one['samples']:,} answers of {_format.percent(one['confidence'])} confidence, "
            f"{_format.percent(one['accuracy'])} right",
        )
        for side in (before, after)
        for one in side["bins"]
    ]  # fmt: skip
    chart = scatter(dots, (0.0, 1.0), (0.0, 1.0), *(lambda value: f"{100 * value:g} %",) * 2)
    drawn = {met: [one for one in chart.points if one.met == met] for met in (False, True)}
    return Reliability(chart, drawn[False], drawn[True], (_points(before["error"]), _points(after["error"])))


def _points(error: float) -> str:
    return f"{100 * error:.1f}"
