"""The search for the plan: each plan that was measured, a chart of them, and what came second at each place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penjing.budget import BYTES, LIMITED, MILLISECONDS, parse_limit
from penjing.report import _format
from penjing.report._scatter import BEYOND, Chart, Point, scatter
from penjing.report._words import option_words

MOST_SHOWN = 12  # rows that are shown without a click

SMALLEST = (
    1e-12  # shares of a latency, losses and milliseconds: nothing smaller is measured, so no axis is drawn for it
)

_KINDS = {"group": "channels", "branch": "branch", "weight": "layer", "value": "value"}


@dataclass(frozen=True)
class Step:
    """A plan that was measured, as a row of text."""

    number: int
    what: str
    latency: str
    size: str
    damage: str
    met: bool
    binds: str
    taken: bool


@dataclass(frozen=True)
class Choice:
    """What was taken at a place and its rival: each in words, with its price."""

    place: str
    kind: str
    taken: tuple[str, str]
    rival: tuple[str, str] | None


@dataclass(frozen=True)
class Search:
    """All that the page tells of the search."""

    steps: Sequence[Step]
    chart: Chart | None
    sizes: Chart | None
    choices: Sequence[Choice]
    damages: bool
    most_shown: int = MOST_SHOWN


def search(report: Mapping[str, Any]) -> Search | None:
    """Returns what the page tells of the search; None where the report tells nothing of one."""
    candidates, places = report.get("candidates") or [], report.get("places") or []
    if len(candidates) < 2 and not places:
        return None
    steps = [_step(number, one) for number, one in enumerate(candidates, 1)]
    damages = any(one.get("damage") is not None for one in candidates)
    return Search(steps, chart(report) if damages else None, sizes(report), [_choice(one) for one in places], damages)


def _step(number: int, candidate: Mapping[str, Any]) -> Step:
    binds, used = candidate.get("binds"), candidate.get("used") or {}
    title = _title(binds) if binds else "–"
    share = used.get(binds)
    reached = (
        "" if share is None else f": {share:.{0 if abs(share - 1) > 0.02 else 1}%} of its limit".replace("%", " %")
    )
    return Step(
        number,
        _what(candidate),
        _times(_expected(candidate)),
        _format.size(candidate["size_bytes"]),
        _format.NOT_MEASURED if candidate.get("damage") is None else _signed(candidate["damage"]),
        bool(candidate["meets"]),
        f"{title}{reached}",
        bool(candidate.get("taken")),
    )


def _what(candidate: Mapping[str, Any]) -> str:
    done = [name for name in candidate.get("techniques") or () if name != "quantize"]
    kind = "integers" if candidate.get("integer") else "floating point"
    left = len(candidate.get("in_float") or ())
    mixed = (
        f" with {left} layer{'' if left == 1 else 's'} in floating point" if left and candidate.get("integer") else ""
    )
    return f"{_format.count(candidate['params'])} parameters, {' and '.join(done) or 'nothing removed'}, {kind}{mixed}"


def _expected(candidate: Mapping[str, Any]) -> float | None:
    latency = candidate["latency"]
    return None if latency is None else latency * candidate.get("correction", 1.0)


def _times(share: float | None) -> str:
    return _format.NOT_MEASURED if share is None else f"{_format.digits(share)}×"


def _choice(row: Mapping[str, Any]) -> Choice:
    def told(option: Mapping[str, Any]) -> tuple[str, str]:
        latency, used = option["latency"], option.get("used") or {}
        costs = [
            f"loss {_signed(option['damage'])}",
            *([] if latency is None else [f"{_format.percent(latency)} of the time"]),
            *(f"{_format.percent(share)} of the limit on {_title(name)}" for name, share in used.items()),
            _format.size(option["size_bytes"]),
        ]
        return option_words(option, row["kind"]), " · ".join(costs)

    rival = row["rival"]
    return Choice(
        row["place"], _KINDS.get(row["kind"], row["kind"]), told(row["taken"]), None if rival is None else told(rival)
    )


def _title(limit: str) -> str:
    """Returns what people call a limit."""
    return LIMITED[limit].title.removeprefix("the ") if limit in LIMITED else limit


def _signed(damage: float) -> str:
    return f"{'+' if damage > 0 else ''}{_format.plain(damage)}"


def chart(report: Mapping[str, Any]) -> Chart | None:
    """Returns the chart of all plans whose latency and damage are known.

    None where there are fewer than two, none does damage, or a latency isn't above 0.
    """
    found = [
        (number, one, latency, float(damage))
        for number, one in enumerate(report["candidates"], 1)
        if (latency := _expected(one)) is not None and (damage := one.get("damage")) is not None
    ]
    if len(found) < 2 or max(damage for *_, damage in found) < SMALLEST:
        return None
    if min(latency for _, _, latency, _ in found) < SMALLEST:
        return None
    allowed = _allowed(report)
    latencies = [latency for _, _, latency, _ in found] + ([] if allowed is None else [allowed])
    narrowest, widest = min(latencies) / BEYOND, BEYOND * max(latencies)
    lowest, highest = min(0.0, *(damage for *_, damage in found)), BEYOND * max(damage for *_, damage in found)

    points = [
        Point(
            latency, damage, number, bool(one["meets"]), bool(one.get("taken")),
            f"{_said(number, one)}, loss {_signed(damage)}",
        )
        for number, one, latency, damage in found
    ]  # fmt: skip
    return scatter(
        points,
        (narrowest, widest),
        (lowest, highest),
        lambda value: f"{value:g}×",
        lambda value: f"{value:g}".replace("-", "−"),
        None if allowed is None else (allowed, f"budget {allowed:.3g}×"),
    )


def sizes(report: Mapping[str, Any]) -> Chart | None:
    """Returns the chart of all plans by latency and size; None where fewer than two have a latency above 0."""
    found = [
        (number, one, latency, float(one["size_bytes"]))
        for number, one in enumerate(report.get("candidates") or [], 1)
        if (latency := _expected(one)) is not None and latency >= SMALLEST and one["size_bytes"]
    ]
    if len(found) < 2:
        return None
    allowed, most = _allowed(report), _allowed_bytes(report)
    latencies = [latency for _, _, latency, _ in found] + ([] if allowed is None else [allowed])
    largest = max([size for *_, size in found] + ([] if most is None else [most]))
    points = [
        Point(latency, size, number, bool(one["meets"]), bool(one.get("taken")), _said(number, one))
        for number, one, latency, size in found
    ]
    return scatter(
        points,
        (min(latencies) / BEYOND, BEYOND * max(latencies)),
        (0.0, BEYOND * largest),
        lambda value: f"{value:g}×",
        _format.size,
        None if allowed is None else (allowed, f"budget {allowed:.3g}×"),
        None if most is None else (most, f"budget {_format.size(most)}"),
    )


def _said(number: int, one: Mapping[str, Any]) -> str:
    """Returns what is shown where the mouse rests on a plan."""
    return f"{number}: {_what(one)}, {_times(_expected(one))} the latency, {_format.size(one['size_bytes'])}"


def _allowed_bytes(report: Mapping[str, Any]) -> float | None:
    """Returns the budget's limit on size in bytes; None where there is none, or it can't be told."""
    limit = parse_limit(report["budget"].get("size") or "", BYTES)
    if limit is None or not limit.relative:
        return None if limit is None else limit.amount
    original = report["baseline"]["size_bytes"]
    return None if original is None else limit.amount * original


def _allowed(report: Mapping[str, Any]) -> float | None:
    """Returns the budget's limit on latency over that of the original; None where there is none, or it can't be told."""
    limit = parse_limit(report["budget"].get("latency") or "", MILLISECONDS)
    if limit is None or limit.relative:
        return None if limit is None else limit.amount
    original = (report["baseline"]["latency_ms"] or {}).get("median")
    return None if original is None or original < SMALLEST else limit.amount / original
