"""Measures a finished result again and compares it with its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing import report
from penjing.budget import Budget
from penjing.data import Data
from penjing.files import sha256
from penjing.graph import load
from penjing.run.baseline import judge_original
from penjing.run.verification import OriginalAndCompressed, verify
from penjing.run.workspace import INNER
from penjing.targets import find_target, open_artifact

SAME = 1e-6  # difference up to which metrics count as equal: they are computed in float32


@dataclass(frozen=True)
class Recheck:
    """A report and a new measurement of the same result.

    Attributes:
        reported: the content of report.json.
        measured: the report's measured part, measured again.
        met: whether the new measurement meets the budget.
        same_file: whether every lowered file is identical, bit for bit, with the one reported.
        same_data: whether the data are those that the report names, with nothing changed.
        agrees: whether `same_file` holds and the metrics are those reported, too (on other data they differ); latencies
            don't count, since they vary with the machine.
    """

    reported: dict[str, Any]
    measured: dict[str, Any]
    met: bool
    same_file: bool
    same_data: bool
    agrees: bool

    @property
    def _sign(self) -> int:
        return -1 if self.measured.get("lower_is_better") else 1

    def rows(self) -> list[tuple[str, str, str]]:
        """Returns rows of (name, reported value, new value) as text."""
        then, now = self.reported, self.measured
        rows = []
        for side in ("baseline", "compressed"):
            metrics = [_text(report[side]["metric"], self._sign) for report in (then, now)]
            rows.append((f"{side}: {now['metric_name']}", metrics[0], metrics[1]))
            latencies = (_text(report[side]["latency_ms"]["median"]) for report in (then, now))
            rows.append((f"{side}: latency, ms", *latencies))  # type: ignore[arg-type]
            rows.append((f"{side}: bytes", f"{then[side]['size_bytes']:,}", f"{now[side]['size_bytes']:,}"))
        rows.append(("times faster", _text(then["ratios"]["latency"]), _text(now["ratios"]["latency"])))
        rows.append(("share of MACs in integers", _text(then["integer_macs"]), _text(now["integer_macs"])))
        return rows


def _text(value: float | None, sign: int = 1) -> str:
    return "not measured" if value is None else f"{sign * value:.4f}"


def recheck(out: Path | str, data: Data) -> Recheck:
    """Measures the result in `out` again, on the validation data of `data`.

    Raises:
        PenjingError: `out` holds no finished run, or one of its files is damaged.
    """
    out = Path(out)
    reported = report.read(out)
    target = reported["target"]["name"]
    suffixes = find_target(target).suffixes
    suffix = suffixes[0]
    original_file = open_artifact(out / INNER / f"original{suffix}", target)
    pair = OriginalAndCompressed(
        load(out / INNER / "original.penjing"),
        original_file,
        load(out / "model.penjing"),
        open_artifact(out / f"model{suffix}", target),
    )
    threads, batch = reported["target"]["threads"], reported["target"]["batch"]
    measured = verify(
        pair, data, Budget.reported(reported["budget"]), threads=threads, batch=batch,
        original=judge_original(original_file, data, threads),
        trained=reported.get("settings", {}).get("trained", True),
    )  # fmt: skip
    hashes = reported["provenance"].get("outputs") or {}
    same_file = all(sha256(out / name) == hashes.get(name) for name in (f"model{suffix}" for suffix in suffixes))
    metrics = all(_same(measured[side]["metric"], reported[side]["metric"]) for side in ("baseline", "compressed"))
    unchanged = (side["parity"]["agreement_with_original"] for side in (measured, reported))
    agrees = same_file and metrics and _same(*unchanged)
    same_data = (reported.get("settings") or {}).get("data") == data.identity()
    return Recheck(reported, measured, bool(measured["met"]), same_file, same_data, agrees)


def _same(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else abs(a - b) <= SAME
