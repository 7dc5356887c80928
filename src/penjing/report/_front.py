"""The page of a sweep: accuracy over latency and over size, with intervals, and which runs another one beats."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from penjing import records
from penjing.errors import PenjingError
from penjing.files import atomic_write
from penjing.report import _format
from penjing.report._compare import Comparison, Row, compare, span
from penjing.report._files import read, save
from penjing.report._headline import is_share
from penjing.report._scatter import Chart, Point, scatter

SWEEP = "sweep.json"
PAGE = "index.html"
NORMAL = 1.96  # standard deviations of a 95 % interval


@dataclass(frozen=True)
class FrontRecord:
    """What `sweep.json` holds.

    Attributes:
        limit: the cost that was limited.
        runs: the folders of the runs, beside the file.
    """

    limit: str
    runs: tuple[str, ...]


def write_front(out: Path, limit: str, runs: Sequence[str]) -> Comparison:
    """Writes the page of a sweep.

    Args:
        out: the folder of the sweep.
        limit: the cost that was limited.
        runs: the folders of the runs within it.

    Raises:
        PenjingError: a run has no report, or the runs can't be compared.
    """
    found = compare([out / name for name in runs])
    environment = Environment(
        loader=PackageLoader("penjing", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    reports = {row.number: read(row.name) for row in found.rows}
    texts = [text | {"run": name} for text, name in zip(found.texts(), runs, strict=True)]
    page = environment.get_template("front.html.j2").render(
        found=found, limit=limit, titles=list(texts[0]), texts=texts, charts=_charts(found, reports)
    )
    save(out / PAGE, page.encode("utf-8", "replace"))
    return found


def note_runs(out: Path, limit: str, runs: Sequence[str]) -> None:
    """Writes the record by which `compare` finds the finished runs of a sweep.

    Args:
        out: the folder of the sweep.
        limit: the cost that is limited.
        runs: the folders of the finished runs within it.
    """
    atomic_write(out / SWEEP, json.dumps({"limit": limit, "runs": list(runs)}, indent=2))


def runs_of(folder: Path | str) -> list[Path]:
    """Returns the runs of a sweep's folder; the folder itself where it holds none.

    Raises:
        PenjingError: the record of the sweep is damaged, or names something outside of its folder.
    """
    folder = Path(folder)
    path = folder / SWEEP
    if not path.is_file():
        return [folder]
    try:
        found = records.convert(records.read(path), FrontRecord)
    except PenjingError as damage:
        raise PenjingError(f"'{path}' is no record of a sweep: {damage}. Run the sweep again to remake it.") from damage
    for name in found.runs:
        if Path(name).name != name or name in ("", ".", ".."):
            raise PenjingError(f"'{path}' is no record of a sweep: '{name}' isn't the name of a folder beside it.")
    return [folder / name for name in found.runs]


def wilson(share: float, samples: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share of right answers (Wilson, Probable Inference, 1927).

    Example:
        >>> [round(end, 3) for end in wilson(0.9, 100)]
        [0.826, 0.945]
    """
    z = NORMAL**2 / samples
    middle, half = share + z / 2, NORMAL * math.sqrt(share * (1 - share) / samples + z / (4 * samples))
    return (middle - half) / (1 + z), (middle + half) / (1 + z)


def _charts(found: Comparison, reports: Mapping[int, Mapping[str, Any]]) -> dict[str, Chart]:
    """Returns the charts by the name of what goes to the right; none where fewer than two runs have both values."""
    ms = {row.number: row.latency_ms for row in found.rows}
    kilobytes = {row.number: row.size_bytes / 1e3 for row in found.rows}
    ranges = {number: _milliseconds(report) for number, report in reports.items()}
    both = {"latency": _chart(found, reports, ms, ranges, "ms"), "size": _chart(found, reports, kilobytes, {}, "kB")}
    return {name: chart for name, chart in both.items() if chart is not None}


def _chart(
    found: Comparison,
    reports: Mapping[int, Mapping[str, Any]],
    across: Mapping[int, float | None],
    ranges: Mapping[int, tuple[float, float] | None],
    unit: str,
) -> Chart | None:
    share = is_share(*(row.metric for row in found.rows))
    dots = [
        Point(
            value, row.metric, row.number, row.met is not False, row.beaten_by is None, _said(row, found),
            ranges.get(row.number), _metric(reports[row.number]) if found.metric == "Accuracy" else None,
            f"{Path(row.name).name}/report.html",
        )
        for row in found.rows
        if row.metric is not None and (value := across[row.number]) is not None
    ]  # fmt: skip
    if len(dots) < 2:
        return None
    return scatter(
        dots,
        span([end for dot in dots for end in (dot.x, *(dot.x_range or ()))]),
        span([end for dot in dots for end in (dot.y, *(dot.y_range or ()))]),
        lambda value: f"{value:g} {unit}",
        (lambda value: f"{100 * value:g} %")
        if share
        else (lambda value: f"{0 - value if found.lower_is_better else value:g}"),
    )


def _said(row: Row, found: Comparison) -> str:
    """Returns what is shown where the mouse rests on a run."""
    sign = -1 if found.lower_is_better else 1
    metric = None if row.metric is None else sign * row.metric
    told = (_format.percent if is_share(row.metric) else _format.plain)(metric)
    beaten = "" if row.beaten_by is None else f"; beaten by {row.beaten_by}"
    name, latency, size = Path(row.name).name, _format.milliseconds(row.latency_ms), _format.size(row.size_bytes)
    return f"{row.number}: {name}: {latency}, {size}, {found.metric.lower()} {told}{beaten}"


def _milliseconds(report: Mapping[str, Any]) -> tuple[float, float] | None:
    """Returns the interval of a run's latency, from that of its ratio to the original's."""
    low, high = report["ratios"].get("latency_interval") or (None, None)
    before = (report["baseline"]["latency_ms"] or {}).get("median")
    return (before / high, before / low) if low and high and before else None


def _metric(report: Mapping[str, Any]) -> tuple[float, float] | None:
    """Returns the interval of a run's accuracy, by the samples on which it was judged."""
    samples, accuracy = report.get("metric_samples"), report["compressed"]["metric"]
    return wilson(accuracy, samples) if samples and accuracy is not None else None
