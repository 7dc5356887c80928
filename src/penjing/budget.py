"""What a compressed model may cost: limits on latency, size, memory, work and energy, and on the fall of the metric."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from penjing.checks import shown
from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.targets import DeviceFacts

MILLISECONDS: Mapping[str, float] = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
MILLIJOULES: Mapping[str, float] = {"nj": 1e-6, "uj": 1e-3, "µj": 1e-3, "mj": 1.0, "j": 1e3}
BYTES: Mapping[str, float] = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
COUNTS: Mapping[str, float] = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}
MEMORIES = ("l1", "l2", "l3", "memory")  # of a device, of which a limit on memory may be a share
CERTAIN = 0.5  # a fall from here on is more often a slip (1 for one point) than a wish


@dataclass(frozen=True)
class Limit:
    """An upper bound: an amount, or a share of what the original has."""

    amount: float
    relative: bool

    def of(self, original: float) -> float:
        """Returns the largest allowed value where the original has `original`."""
        return self.amount * original if self.relative else self.amount


@dataclass(frozen=True)
class Drop(Limit):
    """The largest allowed fall of the metric, in its own units, or as a share of what the original reaches.

    Example:
        >>> Drop(0.02, relative=True).of(0.85), Drop(0.02, relative=False).of(0.85)
        (0.017, 0.02)
    """

    def of(self, original: float) -> float:
        """Returns the allowed fall where the original's metric is `original`, which is negative for errors."""
        return self.amount * abs(original) if self.relative else self.amount

    def __str__(self) -> str:
        return f"{100 * self.amount:.12g}%" if self.relative else f"{self.amount:.12g}"


@dataclass(frozen=True)
class Quantity:
    """What a budget can limit.

    Attributes:
        title: its name in a sentence.
        units: the units in which it is written, with their factors.
        example: how a limit is written.
        shown: how an amount of it is written in a sentence.
        counted: whether it is counted in a graph, so that the same model always has the same amount of it.
        fractional: whether amounts of it are no whole numbers.
    """

    title: str
    units: Mapping[str, float]
    example: str
    shown: str
    counted: bool = True
    fractional: bool = False


_WHOLE = "{:,.0f}"
LIMITED: Mapping[str, Quantity] = {
    "latency": Quantity("latency", MILLISECONDS, "'5ms' or '0.5x'", "{:.3g} ms", counted=False, fractional=True),
    "size": Quantity("size", BYTES, "'1MB' or '0.25x'", f"{_WHOLE} bytes", counted=False),
    "macs": Quantity("the number of MACs", COUNTS, "'20M' or '0.5x'", _WHOLE),
    "peak_memory": Quantity("the memory of activations", BYTES, "'64KB' or '0.5x'", f"{_WHOLE} bytes"),
    "largest_tensor": Quantity("the largest tensor", BYTES, "'64KB' or '0.5x'", f"{_WHOLE} bytes"),
    "layers": Quantity("the number of layers that multiply", COUNTS, "'20' or '0.5x'", _WHOLE),
    "energy": Quantity("the estimated energy", MILLIJOULES, "'2mJ' or '0.5x'", "{:.3g} mJ", fractional=True),
}
"""All that a budget limits but for the metric's fall, in the order in which people read it."""


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


def parse_drop(given: object) -> Drop | None:
    """Reads 0.01, "2%", "1 point" or "1.5 units"; returns None for what is none of these, or not finite and at least 0."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*(%|points?|units?)?\s*", str(given).lower())
        number = math.nan if found is None else float(found[1])
    except ValueError:
        return None
    unit = "" if found is None else found[2] or ""
    amount = number / 100 if unit == "%" or unit.startswith("point") else number
    return Drop(amount, unit == "%") if 0 <= amount < math.inf else None


@dataclass(frozen=True)
class Budget:
    """Limits that a compressed model must keep; None is no limit.

    Attributes:
        latency: of one call on the target: "5ms", or a share of the original's such as "0.5x".
        size: of all files that the device needs: "1MB", or a share such as "0.25x".
        drop: largest allowed fall of the metric, in its own units, 0.01 or "1 point" of accuracy, or relative to the
            original's, "2%": 0.017 where that has 0.85, and by 0.08 an error of 4 may rise. Without labels, by how much the
            agreement with the original may fall below 1 (see `penjing.tasks.Likeness`). From 0.5 on it must be written with
            its unit, "60 points", or "1.5 units" of a metric that is no share: a bare 1 would be 100 points.
        macs: multiply-accumulates of one sample: "20M", or a share such as "0.5x".
        peak_memory: bytes of activations that are alive at once, for one sample: "64KB", or a share; see
            `Cost.peak_activation_bytes`. What a runtime needs besides isn't counted.
        largest_tensor: bytes of the largest activation or weight: "64KB", or a share. This one and `peak_memory` may be as large
            as a memory of the device, or a share of it: "L2", "0.5x L2", "0.1x memory"; see `on`.
        layers: the number of ops that multiply, such as convolutions and linear layers: 20, or a share.
        energy: of one sample, estimated from multiplications and bytes moved: "2mJ", or a share such as "0.5x"; see
            `Cost.energy_mj`. What a processor's counters tell isn't limited.

    Example:
        >>> Budget(latency="0.5x", size="300kB", drop=0.01).latency_limit()
        Limit(amount=0.5, relative=True)
        >>> Budget(drop="1 point").drop, Budget(drop="2%").drop_limit(0.85), Budget(drop="1.5 units").drop_limit()
        (0.01, 0.017, 1.5)
    """

    latency: str | None = None
    size: str | None = None
    drop: float | str | None = None
    macs: str | int | None = None
    peak_memory: str | None = None
    largest_tensor: str | None = None
    layers: str | int | None = None
    energy: str | None = None

    def __post_init__(self) -> None:
        """Refuses what is no budget.

        Raises:
            PenjingError: a limit that can't be read, or that nothing can keep.
        """
        for name in LIMITED:
            if self._share_of_memory(name) is None:
                self.limit(name)
        if self.drop is not None:
            object.__setattr__(self, "drop", _settled(self.drop))

    def limit(self, name: str) -> Limit | None:
        """The limit on one of `LIMITED`, in that quantity's smallest unit but for milliseconds and millijoules.

        Raises:
            PenjingError: it can't be read; or it is a share of a memory, and that is known on a device only.
        """
        if self._share_of_memory(name) is not None:
            raise PenjingError(f"{name}={shown(getattr(self, name))} is known on a device only: ask budget.on(facts).")
        return _limit(name, getattr(self, name), LIMITED[name])

    def on(self, device: "DeviceFacts") -> "Budget":
        """Returns the budget with bytes in place of the device's memories.

        Args:
            device: what is known of the device, as `penjing.targets.machine_of(target)` tells.

        Raises:
            PenjingError: the device doesn't tell how large that memory is.
        """
        sizes = {name.lower(): size for name, size in device.cache_bytes.items()}
        if device.memory_bytes is not None:
            sizes["memory"] = device.memory_bytes
        found = {}
        for name in LIMITED:
            if (share := self._share_of_memory(name)) is not None:
                if share[1] not in sizes:
                    known = ", ".join(sizes) or "none"
                    raise PenjingError(
                        f"{name}={shown(getattr(self, name))}: {device.processor} doesn't tell the size of that memory (known: "
                        f"{known}). Give bytes, such as '64KB'."
                    )
                found[name] = f"{int(share[0] * sizes[share[1]])} B"
        return replace(self, **found) if found else self

    def told_on(self, device: "DeviceFacts") -> list[str]:
        """Returns a line for each limit that is a share of the device's memory: how many bytes that is; errors as in `on`."""
        there = self.on(device)
        changed = [name for name in LIMITED if getattr(there, name) != getattr(self, name)]
        return [
            f"{LIMITED[name].title.removeprefix('the ').capitalize()}: {getattr(self, name)} is {getattr(there, name)} on "
            f"{device.processor}."
            for name in changed
        ]

    def _share_of_memory(self, name: str) -> tuple[float, str] | None:
        """Returns a limit as a share of one of `MEMORIES`; None where it is no such share."""
        value = getattr(self, name)
        if not isinstance(value, str) or LIMITED[name].units is not BYTES or not LIMITED[name].counted:
            return None
        parts = re.fullmatch(r"(?:(.*)[xX×])?\s*(\S*)", value.strip())
        if parts is None or parts[2].lower() not in MEMORIES:
            return None
        memory = parts[2].lower()
        limit = Limit(1.0, True) if parts[1] is None else parse_limit(f"{parts[1]}x", BYTES)
        if limit is None or not 0 < limit.amount <= 1:
            raise PenjingError(f"{name}={shown(value)} is no budget; write a share of a memory as '0.5x {parts[2]}'.")
        return limit.amount, memory

    def limits(self) -> dict[str, Limit]:
        """All limits on what a model costs, by name, in the order of `LIMITED`."""
        found = {name: self.limit(name) for name in LIMITED}
        return {name: limit for name, limit in found.items() if limit is not None}

    def latency_limit(self) -> Limit | None:
        """The limit on latency, in milliseconds where absolute."""
        return self.limit("latency")

    def size_limit(self) -> Limit | None:
        """The limit on size, in bytes where absolute."""
        return self.limit("size")

    def used(self, before: Mapping[str, float | None], after: Mapping[str, float | None]) -> dict[str, float]:
        """Returns which share of each limit a model uses, by the limit's name: 1 is all of it, more is too much.

        Args:
            before: how much the original has of each quantity, by name; None where that isn't known.
            after: how much the model has of it. An amount that isn't known counts as infinite.
        """
        found = {}
        for name, limit in self.limits().items():
            had, has = before.get(name), after.get(name)
            if has is None or (limit.relative and had is None):
                found[name] = math.inf
            else:
                allowed = limit.of(had or 0.0)
                found[name] = has / allowed if allowed else math.inf if has else 0.0
        return found

    def drop_limit(self, metric: float | None = None) -> float | None:
        """The largest allowed fall of the metric, in its own units.

        Args:
            metric: that of the original; None without labels, where the agreement with the original takes its place, from 1.
        """
        drop = parse_drop(self.drop)
        return None if drop is None else drop.of(1.0 if metric is None else metric)

    def drop_words(self, metric: float) -> str:
        """Says what a drop that is relative to the original's metric means: ", of which 2% is 0.0170"; "" for others."""
        drop = parse_drop(self.drop)
        return f", of which {drop} is {drop.of(metric):.4f}" if drop is not None and drop.relative else ""

    @classmethod
    def reported(cls, content: Mapping[str, Any]) -> "Budget":
        """Returns the budget of a report; what it says was asked for once, and needs no unit to be believed."""
        drop = content.get("drop")
        read = parse_drop(drop)
        amount = 0.0 if read is None else read.amount
        sure = f"{amount} units" if amount > 1 or (amount >= CERTAIN and not isinstance(drop, str)) else drop
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in known} | {"drop": sure})

    def __str__(self) -> str:
        parts = [f"{name.replace('_', ' ')} {value}" for name, value in vars(self).items() if value is not None]
        return ", ".join(parts) or "no limits"


def _settled(drop: float | str) -> float | str:
    """Returns an allowed fall in one spelling: a number, or, where that might be meant otherwise, a number with its unit.

    Raises:
        PenjingError: it is none, or can't be meant.
    """
    read = parse_drop(drop)
    if read is None:
        given = drop if isinstance(drop, str) else shown(drop)
        raise PenjingError(
            f"drop={given} is no budget; give the largest allowed fall, such as 0.01, or '2%' of what the original reaches."
        )
    if read.relative:
        if read.amount > 1:
            raise PenjingError(
                f"drop={drop} is no budget: a metric can't lose more than 100% of itself. Write '{read.amount:.12g} units' for "
                "an absolute fall of one that is no share, such as decibels."
            )
        return str(read)
    amount, number, unit = read.amount, f"{read.amount:.12g}", str(drop).strip().lower()
    if amount < CERTAIN:
        return amount
    if unit.endswith(("unit", "units", "point", "points")):
        return f"{number} units"
    raise PenjingError(
        f"drop={drop} would let the metric fall by {100 * amount:g} points. Write '{number} points' where {number} of 100 are "
        f"meant, '{number}%' for a share of what the original reaches, or '{number} units' where the fall itself is meant."
    )


def _limit(name: str, value: str | int | None, of: Quantity) -> Limit | None:
    if value is None:
        return None
    readable = isinstance(value, str) or (isinstance(value, int) and "" in of.units)
    limit = parse_limit(value, of.units) if readable else None
    if limit is None or not 0 < limit.amount < math.inf:
        share = (
            ", or as a share of a memory of the device, such as '0.5x L2'" if of.units is BYTES and of.counted else ""
        )
        raise PenjingError(f"{name}={shown(value)} is no budget; write it as {of.example}{share}.")
    return limit
