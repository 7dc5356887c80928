"""What a compressed model may cost: limits on latency, size and the fall of the metric."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penjing.checks import shown
from penjing.errors import PenjingError

MILLISECONDS: Mapping[str, float] = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
BYTES: Mapping[str, float] = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
CERTAIN = 0.5  # a fall from here on is more often a slip (1 for one point) than a wish


@dataclass(frozen=True)
class Limit:
    """An upper bound: an amount, or a share of what the original has."""

    amount: float
    relative: bool

    def of(self, original: float) -> float:
        """Returns the largest allowed value where the original has `original`."""
        return self.amount * original if self.relative else self.amount


def parse_limit(text: str | float | int, units: Mapping[str, float]) -> Limit | None:
    """Reads "0.5x", "5ms" or "1 MB"; returns None for what is none of these, a number without a unit among them."""
    found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*([a-zµ×]*)\s*", str(text).lower())
    if found is None or isinstance(text, bool):
        return None
    try:
        number = float(found[1])
    except ValueError:
        return None
    if found[2] in ("x", "×"):
        return Limit(number, True)
    return Limit(number * units[found[2]], False) if found[2] in units else None


def parse_drop(given: object) -> float | None:
    """Reads 0.01, "0.01", "1%" or "1.5 units"; returns None for what is none of these, or not finite and at least 0."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*(%|units?)?\s*", str(given).lower())
        number = math.nan if found is None else float(found[1])
    except ValueError:
        return None
    amount = number / 100 if found is not None and found[2] == "%" else number
    return amount if 0 <= amount < math.inf else None


@dataclass(frozen=True)
class Budget:
    """Limits that a compressed model must keep; None is no limit.

    Attributes:
        latency: of one call on the target: "5ms", or a share of the original's such as "0.5x".
        size: of all files that the device needs: "1MB", or a share such as "0.25x".
        drop: largest allowed fall of the metric, in its own units: 0.01 or "1%" is one point of accuracy. Without labels,
            by how much the agreement with the original may fall below 1 (see `penjing.tasks.Likeness`). From 0.5 on it
            must be written with its unit, "60%", or "1.5 units" of a metric that is no share: a bare 1 would be 100 points.

    Example:
        >>> Budget(latency="0.5x", size="300kB", drop=0.01).latency_limit()
        Limit(amount=0.5, relative=True)
        >>> Budget(drop="1%").drop, Budget(drop="1.5 units").drop_limit()
        (0.01, 1.5)
    """

    latency: str | None = None
    size: str | None = None
    drop: float | str | None = None

    def __post_init__(self) -> None:
        """Refuses what is no budget.

        Raises:
            PenjingError: a limit that can't be read, or that nothing can keep.
        """
        self.latency_limit()
        self.size_limit()
        if self.drop is not None:
            object.__setattr__(self, "drop", _settled(self.drop))

    def latency_limit(self) -> Limit | None:
        """The limit on latency, in milliseconds where absolute."""
        return _limit("latency", self.latency, MILLISECONDS, "'5ms' or '0.5x'")

    def size_limit(self) -> Limit | None:
        """The limit on size, in bytes where absolute."""
        return _limit("size", self.size, BYTES, "'1MB' or '0.25x'")

    def drop_limit(self) -> float | None:
        """The largest allowed fall of the metric, in its own units."""
        return parse_drop(self.drop)

    @classmethod
    def reported(cls, content: Mapping[str, Any]) -> "Budget":
        """Returns the budget of a report; what it says was asked for once, and needs no unit to be believed."""
        drop = content.get("drop")
        amount = parse_drop(drop) or 0.0
        sure = f"{amount} units" if amount > 1 or (amount >= CERTAIN and not isinstance(drop, str)) else drop
        return cls(content.get("latency"), content.get("size"), sure)

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name, value in vars(self).items() if value is not None]
        return ", ".join(parts) or "no limits"


def _settled(drop: float | str) -> float | str:
    """Returns an allowed fall in one spelling: a number, or, where that might be meant otherwise, a number with its unit.

    Raises:
        PenjingError: it is none, or can't be meant.
    """
    amount = parse_drop(drop)
    if amount is None:
        given = drop if isinstance(drop, str) else shown(drop)
        raise PenjingError(f"drop={given} is no budget; give the largest allowed fall, such as 0.01 or '1%'.")
    if amount < CERTAIN:
        return amount
    number, unit = f"{amount:.12g}", str(drop).strip().lower()
    if unit.endswith("%"):
        if amount > 1:
            raise PenjingError(
                f"drop={drop} is no budget: a share can't fall by more than 100%. Write '{number} units' for a metric that "
                "is no share, such as decibels."
            )
        return f"{100 * amount:.12g}%"
    if unit.endswith(("unit", "units")):
        return f"{number} units"
    raise PenjingError(
        f"drop={drop} would let the metric fall by {100 * amount:g} points. Write '{number}%' where {number} of 100 are "
        f"meant, '{100 * amount:.12g}%' where that is, or '{number} units' for a metric that is no share, such as decibels."
    )


def _limit(name: str, value: str | None, units: Mapping[str, float], example: str) -> Limit | None:
    if value is None:
        return None
    limit = parse_limit(value, units) if isinstance(value, str) else None
    if limit is None or not 0 < limit.amount < math.inf:
        raise PenjingError(f"{name}={shown(value)} is no budget; write it as {example}.")
    return limit
