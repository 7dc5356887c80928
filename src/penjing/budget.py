"""What a compressed model may cost: limits on latency, size and the fall of the metric."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from penjing.errors import PenjingError

MILLISECONDS: Mapping[str, float] = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
BYTES: Mapping[str, float] = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


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


@dataclass(frozen=True)
class Budget:
    """Limits that a compressed model must keep; None is no limit.

    Attributes:
        latency: of one call on the target: "5ms", or a share of the original's such as "0.5x".
        size: of all files that the device needs: "1MB", or a share such as "0.25x".
        drop: largest allowed fall of the metric, in its own units (0.01 is one point of accuracy). Without labels, the
            largest share of answers that may differ from the original's.

    Example:
        >>> Budget(latency="0.5x", size="300kB", drop=0.01).latency_limit()
        Limit(amount=0.5, relative=True)
    """

    latency: str | None = None
    size: str | None = None
    drop: float | None = None

    def __post_init__(self) -> None:
        """Refuses what is no budget.

        Raises:
            PenjingError: a limit that can't be read, or that nothing can keep.
        """
        self.latency_limit()
        self.size_limit()
        if self.drop is not None:
            number = isinstance(self.drop, int | float) and not isinstance(self.drop, bool)
            if not number or not 0 <= self.drop < math.inf:
                raise PenjingError(f"drop={self.drop!r} is no budget; give the largest allowed fall, such as 0.01.")

    def latency_limit(self) -> Limit | None:
        """The limit on latency, in milliseconds where absolute."""
        return _limit("latency", self.latency, MILLISECONDS, "'5ms' or '0.5x'")

    def size_limit(self) -> Limit | None:
        """The limit on size, in bytes where absolute."""
        return _limit("size", self.size, BYTES, "'1MB' or '0.25x'")

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name, value in vars(self).items() if value is not None]
        return ", ".join(parts) or "no limits"


def _limit(name: str, value: str | None, units: Mapping[str, float], example: str) -> Limit | None:
    if value is None:
        return None
    limit = parse_limit(value, units)
    if limit is None or not 0 < limit.amount < math.inf:
        raise PenjingError(f"{name}={value!r} is no budget; write it as {example}.")
    return limit
