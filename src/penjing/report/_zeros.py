"""The page's words on zeros among the weights: how many there are, and what they gain on this target."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penjing.report import _format


@dataclass(frozen=True)
class ZerosTable:
    """A few sentences, and rows of (place, granularity, weights, zeros, gain)."""

    sentences: str
    rows: tuple[tuple[str, str, str, str, str], ...]


def zeros(report: Mapping[str, Any]) -> ZerosTable | None:
    """Returns the sentences and rows on zeros, or None where pruning set no weight to zero."""
    found = report.get("zeros")
    if not found or not found["zeros"]:
        return None
    rows = tuple(
        (
            place["place"],
            place["granularity"] or "not recorded",
            _format.count(place["weights"]),
            f"{_format.count(place['zeros'])} ({_share(place)})",
            _brings(place["faster"], place["smaller"]),
        )
        for place in found["places"]
    )
    total = f"{found['zeros']:,} of {found['weights']:,} weights ({_share(found)}) are zeros that pruning left."
    return ZerosTable(f"{total} {_gain(found)} {found['why']} {_sent(found['deflated_bytes'])}".strip(), rows)


def _gain(found: Mapping[str, Any]) -> str:
    faster, smaller = found["faster"], found["smaller"]
    if not faster and not smaller:
        return "None of them makes this file faster or smaller."
    words = [
        f"{number:,} make the file {what}" for number, what in ((faster, "faster"), (smaller, "smaller")) if number
    ]
    return f"{' and '.join(words)}; the others gain nothing here."


def _sent(deflated: Mapping[str, Any] | None) -> str:
    if not deflated or deflated["baseline"] is None or deflated["compressed"] is None:
        return ""
    sizes = (_format.size(deflated[side]) for side in ("compressed", "baseline"))
    return "Compressed for sending, the file takes {}, the original's {}.".format(*sizes)


def _share(counts: Mapping[str, Any]) -> str:
    return _format.percent(counts["zeros"] / counts["weights"] if counts["weights"] else None)


def _brings(faster: bool, smaller: bool) -> str:
    return ", ".join(word for word, gained in (("faster", faster), ("smaller", smaller)) if gained) or "nothing"
