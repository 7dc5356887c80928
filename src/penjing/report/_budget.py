"""The budget, line by line: the limit that was asked for, and the value that was reached."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penjing.budget import BYTES, COUNTS, LIMITED, MILLIJOULES, MILLISECONDS, parse_drop, parse_limit
from penjing.report import _format
from penjing.report._headline import alike, is_share, metric_title

_COUNT = {**COUNTS, "b": 1e9}


@dataclass(frozen=True)
class Item:
    """One line of the budget; `met` is None where the limit could not be checked."""

    key: str
    name: str
    asked: str
    reached: str
    met: bool | None


@dataclass(frozen=True)
class _Kind:
    name: str
    read: Callable[[Mapping[str, Any]], float | None]
    units: Mapping[str, float]
    show: Callable[[float | None], str]


_KINDS = {
    "latency": _Kind(
        "Latency", lambda side: (side["latency_ms"] or {}).get("median"), MILLISECONDS, _format.milliseconds
    ),
    "size": _Kind("Size", lambda side: side["size_bytes"], BYTES, _format.size),
    "params": _Kind("Parameters", lambda side: side["params"], _COUNT, _format.count),
    "macs": _Kind("MACs", lambda side: side["macs"], _COUNT, _format.count),
    "peak_memory": _Kind("Memory of activations", lambda side: side.get("peak_activation_bytes"), BYTES, _format.size),
    "largest_tensor": _Kind("Largest tensor", lambda side: side.get("largest_tensor_bytes"), BYTES, _format.size),
    "layers": _Kind("Layers that multiply", lambda side: side.get("layers"), _COUNT, _format.count),
    "memory": _Kind("Peak memory", lambda side: side["peak_memory_bytes"], BYTES, _format.size),
    "energy": _Kind(
        "Energy of a sample, estimated", lambda side: side.get("energy_estimated_mj"), MILLIJOULES, _format.millijoules
    ),
}


def items(report: Mapping[str, Any]) -> list[Item]:
    """Returns one line per limit of the budget, in the order latency, size, drop, what is counted, the rest."""
    budget = {key: value for key, value in report["budget"].items() if value is not None}
    order = ["latency", "size", "drop", *(name for name, one in LIMITED.items() if one.counted)]
    keys = [key for key in order if key in budget] + sorted(budget.keys() - set(order))
    return [_item(key, budget[key], report) for key in keys]


def _item(key: str, asked: Any, report: Mapping[str, Any]) -> Item:
    if key == "drop":
        return _drop(asked, report)
    if key not in _KINDS:
        return Item(key, key, _format.anything(asked), "not checked here", None)
    kind = _KINDS[key]
    before, after = kind.read(report["baseline"]), kind.read(report["compressed"])
    limit = parse_limit(asked, kind.units)
    if limit is None:
        return Item(key, kind.name, _format.anything(asked), kind.show(after), None)
    amount = limit.amount
    if not limit.relative:
        return Item(
            key, kind.name, f"at most {kind.show(amount)}", kind.show(after), None if after is None else after <= amount
        )
    if before is None or after is None or before <= 0:
        return Item(key, kind.name, f"at most {amount:g}× the original", _format.NOT_MEASURED, None)
    return Item(
        key,
        kind.name,
        f"at most {amount:g}× ({kind.show(amount * before)})",
        f"{_share(after / before, amount)}× ({kind.show(after)})",
        after <= amount * before,
    )


def _share(reached: float, asked: float) -> str:
    """Returns a ratio with enough digits that a near miss doesn't read as a hit."""
    for places in (2, 3, 4):
        text = f"{reached:.{places}f}"
        if (float(text) <= asked + 1e-9) == (reached <= asked + 1e-9):
            return text
    return f"{reached:.6f}"


def _drop(asked: Any, report: Mapping[str, Any]) -> Item:
    """Returns the line on the metric's fall; without labels, the agreement with the original takes the metric's place."""
    drop = parse_drop(asked)
    if drop is None:
        return Item("drop", "Drop", _format.anything(asked), "not checked here", None)
    before, after = report["baseline"]["metric"], report["compressed"]["metric"]
    name = metric_title(report)
    limit = drop.of(1.0 if before is None else before)
    if before is None:
        agreement = report["parity"].get("agreement_with_original")
        what, _, lost = alike(report)
        wanted = f"at most {limit * 100:g} % of {what} {lost}"
        if agreement is None:
            return Item("drop", "Answers", wanted, _format.NOT_MEASURED, None)
        met = report.get("learned") is not False and 1 - agreement <= limit + 1e-9
        return Item("drop", "Answers", wanted, f"{_format.percent(1 - agreement)} {lost}", met)
    if after is None:
        return Item("drop", name, f"lose at most {_format.anything(asked)}", _format.NOT_MEASURED, None)
    fall = before - after
    scale = 100 if is_share(before, after) else 1
    digits = "{:.3g}" if drop.relative else "{:g}"
    wanted, reached = digits.format(limit * scale), _share(abs(fall) * scale, limit * scale)
    unit, units = (" point" if wanted == "1" else " points", " points") if scale == 100 else ("", "")
    unit += f" ({drop} of the original's)" if drop.relative else ""
    verb = "lost" if fall >= 0 else "gained"
    lose = "lose"
    if report.get("lower_is_better"):
        verb, lose = "rose by" if fall >= 0 else "fell by", "rise by"
    # 0.92 - 0.91 is a hair more than 0.01 in floating point, and is a drop of one point all the same.
    if report.get("learned") is False:
        return Item("drop", name, f"lose at most {wanted}{unit}", "the original has learned nothing to lose", False)
    met = fall <= limit + 1e-9
    return Item("drop", name, f"{lose} at most {wanted}{unit}", f"{verb} {reached}{units}", met)
