"""How both networks do on changed images, as rows of a table: one for each change, a pair of columns for each severity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penjing.report import _format
from penjing.report._headline import is_share

_NAMES = {
    "none": "unchanged",
    "gaussian_noise": "noise",
    "gaussian_blur": "blur",
    "brightness": "brighter",
    "contrast": "less contrast",
    "jpeg_compression": "JPEG",
}


@dataclass(frozen=True)
class Robustness:
    """The table: titles of its columns, and rows of a change's name and its cells."""

    samples: str
    severities: Sequence[str]
    unchanged: str
    rows: Sequence[tuple[str, Sequence[str]]]
    sentence: str


def robustness(report: Mapping[str, Any]) -> Robustness | None:
    """Returns what the page tells of changed images; None where nothing was judged."""
    told = report.get("robustness")
    if not told or len(told["rows"]) < 2:
        return None
    clean, *changed = told["rows"]
    severities = sorted({row["severity"] for row in changed})
    cells = {(row["corruption"], row["severity"]): _pair(report, row) for row in changed}
    names = list(dict.fromkeys(row["corruption"] for row in changed))
    falls = [clean[side] - sum(row[side] for row in changed) / len(changed) for side in ("before", "after")]
    sign = -1 if report.get("lower_is_better") else 1
    amounts = [_amount(report, -sign * fall, clean) for fall in falls]
    return Robustness(
        f"{told['samples']:,}",
        [f"severity {severity}" for severity in severities],
        _pair(report, clean),
        [(_NAMES.get(name, name), [cells.get((name, severity), "") for severity in severities]) for name in names],
        f"In the mean over all changes the metric changes by {amounts[0]} before and by {amounts[1]} now.",
    )


def _pair(report: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    sign = -1 if report.get("lower_is_better") else 1
    return " → ".join(
        _format.percent(row[side]) if is_share(row[side]) else _format.plain(sign * row[side])
        for side in ("before", "after")
    )


def _amount(report: Mapping[str, Any], value: float, clean: Mapping[str, Any]) -> str:
    shares = is_share(clean["before"], clean["after"])
    return f"{_format.signed(100 * value)} points" if shares else _format.plain(value)
