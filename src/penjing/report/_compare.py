"""Several finished runs side by side: one table, one chart of them, and which of them no other beats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from penjing.errors import PenjingError
from penjing.files import sha256
from penjing.report import _format
from penjing.report._files import read, save
from penjing.report._headline import compared, is_share, metric_title, sure, where
from penjing.report._scatter import Chart, Point, scatter

ROOM = 0.08  # of the range of values, around the outermost dots
JUDGED_ON = ("validation.csv", "examples.npz")  # files of a run that tell the samples on which it was judged
NO_DATA = "no data"
_WHY = "Only results that were judged alike stand in one table."


@dataclass(frozen=True)
class Row:
    """A finished run among others.

    Attributes:
        number: its place in the table, from 1.
        name: its folder, as the user named it.
        model: name of its model.
        techniques: what was done, by the techniques' names.
        place: target, threads and batch: "ONNX Runtime, 1 thread, batch 1".
        device: name of the processor that it was measured on.
        latency_ms: median latency, in milliseconds; None where it wasn't measured.
        faster: times faster than its original; 1 where the measurement can't tell the two apart.
        size_bytes: bytes of the file for the device.
        smaller: times smaller than its original's file.
        metric: of the file for the device; None without labels.
        lost: by how much the metric is below that of its original.
        met: whether it kept its budget; None where it had none.
        beaten_by: number of a run on the same place and device that is at least as fast, small and good, and better in one of
            these; None where there is none.
    """

    number: int
    name: str
    model: str
    techniques: tuple[str, ...]
    place: str
    device: str
    latency_ms: float | None
    faster: float | None
    size_bytes: int
    smaller: float | None
    metric: float | None
    lost: float | None
    met: bool | None
    beaten_by: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Finished runs side by side.

    Attributes:
        metric: title of the metric.
        data: name of the data on which all were judged; `NO_DATA` where none was judged.
        rows: the runs, in the order in which they were given.
        lower_is_better: whether the metric is an error; it is negative in the rows, and shown without the sign.
    """

    metric: str
    data: str
    rows: tuple[Row, ...]
    lower_is_better: bool = False

    @property
    def judged(self) -> bool:
        """Whether the runs had data, so that their metrics can tell which is better."""
        return self.data != NO_DATA

    def texts(self) -> list[dict[str, str]]:
        """Returns the rows as people read them, by the titles of their columns."""
        share = is_share(*(row.metric for row in self.rows))
        return [self._texts(row, share) for row in self.rows]

    def _texts(self, row: Row, share: bool) -> dict[str, str]:
        beaten = "" if row.beaten_by is None else f"by {row.beaten_by}"
        budget = "" if row.met is None else "met" if row.met else "missed"
        sign = -1 if self.lower_is_better else 1
        metric = (_format.percent if share else _format.plain)(None if row.metric is None else sign * row.metric)
        gained = None if row.lost is None else 0.0 - sign * row.lost  # no minus before a zero
        change = "" if gained is None else _format.signed(100 * gained, 1) if share else _format.plain(gained)
        return {
            "#": str(row.number),
            "run": row.name,
            "done": ", ".join(row.techniques) or "nothing",
            "on": row.place,
            "latency": _both(_format.milliseconds(row.latency_ms), compared(row.faster, "faster", "slower", "as fast")),
            "size": _both(_format.size(row.size_bytes), compared(row.smaller, "smaller", "bigger", "as large")),
            self.metric: metric + (f" ({change})" if change else ""),
            "budget": budget,
            "beaten": beaten,
        }


def compare(folders: Sequence[Path | str]) -> Comparison:
    """Compares the results of finished runs, by what their reports say.

    Raises:
        PenjingError: there are fewer than two, a folder holds no report, a report has a metric but doesn't name its data, or
            two runs were judged on other data or by another metric; both are then named.
    """
    if len(folders) < 2:
        raise PenjingError("Name two or more folders of finished runs to compare.")
    reports = {str(folder): read(folder) for folder in folders}
    if len(reports) < len(folders):
        raise PenjingError("A folder is named twice: name each run once.")
    for name, report in reports.items():
        if report["compressed"]["metric"] is not None and not _names_data(report):
            raise PenjingError(
                f"{name} can't be compared: its report has a metric, but doesn't name the data behind it. {_WHY} Make it again "
                "with this version of Penjing."
            )
    for one, other in combinations(reports, 2):  # all pairs: a file that the first run lacks may tell others apart
        _check_alike(one, other, reports[one], reports[other])
    rows = [_row(number, name, report) for number, (name, report) in enumerate(reports.items(), 1)]
    beaten = [next((other.number for other in rows if _beats(other, row)), None) for row in rows]
    found = tuple(replace(row, beaten_by=number) for row, number in zip(rows, beaten, strict=True))
    first = next(iter(reports.values()))
    return Comparison(metric_title(first), _data(first), found, bool(first.get("lower_is_better")))


def write_comparison(found: Comparison, path: Path) -> Path:
    """Writes a comparison as one page, which needs nothing beside it.

    Raises:
        PenjingError: it can't be written.
    """
    environment = Environment(
        loader=PackageLoader("penjing", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    texts = found.texts()
    page = environment.get_template("comparison.html.j2").render(
        found=found, titles=list(texts[0]), texts=texts, chart=chart(found)
    )
    return save(path, page.encode("utf-8", "replace"))


def _both(value: str, change: str | None) -> str:
    return value if change is None else f"{value}, {change}"


def chart(found: Comparison) -> Chart | None:
    """Returns the chart of latency and metric; None where fewer than two runs have both."""
    share = is_share(*(row.metric for row in found.rows))
    known = [(row, row.latency_ms, row.metric) for row in found.rows]
    dots = [
        Point(latency, metric, row.number, row.met is not False, row.beaten_by is None, f"{row.number}: {row.name}")
        for row, latency, metric in known
        if latency is not None and metric is not None
    ]
    if len(dots) < 2:
        return None
    return scatter(
        dots,
        span([dot.x for dot in dots]),
        span([dot.y for dot in dots]),
        lambda value: f"{value:g} ms",
        (lambda value: f"{100 * value:g} %")
        if share
        else (lambda value: f"{0 - value if found.lower_is_better else value:g}"),
    )


def span(values: Sequence[float]) -> tuple[float, float]:
    """Returns the ends of an axis for some values, with room around them."""
    least, most = min(values), max(values)
    room = ROOM * (most - least) or 0.1 * abs(most) or 1.0
    return least - room, most + room


def _row(number: int, name: str, report: Mapping[str, Any]) -> Row:
    after, before, ratios = report["compressed"], report["baseline"], report["ratios"]
    both = after["metric"] is not None and before["metric"] is not None
    return Row(
        number,
        name,
        report["model"],
        tuple(dict.fromkeys(step["technique"] for step in report["plan"])),
        where(report["target"]),
        str(report["target"]["device"] or ""),
        (after["latency_ms"] or {}).get("median"),
        sure(ratios),
        after["size_bytes"],
        ratios["size"],
        after["metric"],
        before["metric"] - after["metric"] if both else None,
        bool(report.get("met")) if report["budget"] else None,
    )


def _check_alike(first: str, other: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Raises if two runs were judged on other data or by another metric."""
    told = {
        "data": (_data(a), _data(b)),
        "metric": (metric_title(a), metric_title(b)),
        "number of samples": (a.get("metric_samples"), b.get("metric_samples")),
    }
    for what, (one, another) in told.items():
        if one != another:
            raise PenjingError(f"{first} and {other} can't be compared: {what} of {one} and of {another}. {_WHY}")
    for name in JUDGED_ON:
        one, another = (Path(folder, name) for folder in (first, other))
        if one.is_file() and another.is_file() and sha256(one) != sha256(another):
            raise PenjingError(f"{first} and {other} can't be compared: {name} tells of other samples in each. {_WHY}")


def _told_data(report: Mapping[str, Any]) -> str:
    return str((report.get("settings") or {}).get("data", ""))


def _names_data(report: Mapping[str, Any]) -> bool:
    """Tells whether a report names its data: a run without data says "none", and an old report nothing."""
    return " " in _told_data(report)


def _data(report: Mapping[str, Any]) -> str:
    """Returns the name of a run's data, without what tells its training batches apart."""
    return _told_data(report).rpartition(" ")[0] if _names_data(report) else NO_DATA


def _beats(one: Row, other: Row) -> bool:
    """Tells whether a run is as fast, as small and as good as another one in the same place, and better in one of these."""
    if one is other or (one.place, one.device) != (other.place, other.device):
        return False
    pairs = [
        (other.latency_ms, one.latency_ms),
        (other.size_bytes, one.size_bytes),
        (one.metric, other.metric),
    ]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return len(known) == len(pairs) and all(a >= b for a, b in known) and any(a > b for a, b in known)
