"""The per-layer chart: one row per layer of the user's model, time and parameters before and after."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penjing.report import _format


@dataclass(frozen=True)
class Bars:
    """The two bars of one layer in one column: lengths in percent (None: no bar), texts, and the value to sort by."""

    before: float | None
    after: float | None
    before_text: str
    after_text: str
    sort: float


@dataclass(frozen=True)
class LayerRow:
    """One layer."""

    name: str
    op: str
    shapes: str
    integer: bool
    state: str  # "kept", "removed" or "new"
    pairs: tuple[Bars, ...]
    noise: str = ""


@dataclass(frozen=True)
class Layers:
    """The chart: titles of its columns, its rows, the number of integer layers, and a note where times are missing.

    `noisy` tells whether the rows say how far the layers' signals stand above their noise.
    """

    columns: tuple[str, ...]
    rows: tuple[LayerRow, ...]
    integers: int
    note: str
    noisy: bool = False


def layers(found: Sequence[Mapping[str, Any]], noise: Mapping[str, float] | None = None) -> Layers:
    """Returns the chart; where no layer was timed, it shows MACs instead of time, and says so.

    Args:
        found: the layers of a report.
        noise: by how many decibels a layer's signal stands above its noise, by the layer's name.
    """
    levels = noise or {}
    timed = any(
        side and side["latency_ms"] is not None for layer in found for side in (layer["before"], layer["after"])
    )
    first: tuple[str, str, Callable[[float | None], str]] = (
        ("Latency", "latency_ms", _format.milliseconds) if timed else ("MACs", "macs", _format.count)
    )
    columns = (first, ("Parameters", "params", _format.count))
    longest = {
        key: max((side[key] or 0 for layer in found for side in (layer["before"], layer["after"]) if side), default=0)
        for _, key, _ in columns
    }
    rows = tuple(
        LayerRow(
            layer["name"] or "(model)",
            layer["op"],
            _shapes(layer),
            bool((layer["after"] or {}).get("integer")),
            "removed" if layer["after"] is None else "new" if layer["before"] is None else "kept",
            tuple(_pair(layer, key, longest[key], show) for _, key, show in columns),
            f"{levels[layer['name']]:.0f} dB" if layer["name"] in levels else "",
        )
        for layer in found
    )
    note = "" if timed else "Latency per layer was not measured; MACs are shown instead."
    integers, noisy = sum(row.integer for row in rows), any(row.noise for row in rows)
    return Layers(tuple(name for name, _, _ in columns), rows, integers, note, noisy)


def _pair(layer: Mapping[str, Any], key: str, longest: float, show: Callable[[float | None], str]) -> Bars:
    before, after = layer["before"], layer["after"]
    values = [_value(side, key) for side in (before, after)]
    lengths = [None if value is None or longest <= 0 else round(100 * value / longest, 2) for value in values]
    return Bars(
        lengths[0],
        lengths[1],
        "–" if before is None else show(values[0]),
        "–" if after is None else show(values[1]),
        max(value or 0 for value in values),
    )


def _value(side: Mapping[str, Any] | None, key: str) -> float | None:
    """Returns a number of one side; None also for MACs that leave out an op."""
    if side is None or (key == "macs" and side.get("counted") is False):
        return None
    value: float | None = side[key]
    return value


def _shapes(layer: Mapping[str, Any]) -> str:
    shapes = [_format.shape(side["shape"]) for side in (layer["before"], layer["after"]) if side and side.get("shape")]
    return " → ".join(dict.fromkeys(shapes))
